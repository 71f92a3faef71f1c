//! How a list names a system call and its allowed arguments.

/// A system call that a list allows.
pub(super) struct Call {
    /// `SYS_*` of libc.
    pub number: i64,
    /// Allowed if one of these holds, or always if there is none.
    pub when: &'static [When],
}

/// A condition on one argument. Arguments are compared as 32 bits.
#[derive(Clone, Copy)]
pub(super) enum When {
    /// The argument of this index has this value.
    Equals(u8, u32),
    /// The bits of the mask have this value.
    Bits {
        /// The argument's index.
        argument: u8,
        /// The bits that are compared.
        mask: u32,
        /// Their value.
        value: u32,
    },
    /// The argument of this index has another value.
    Differs(u8, u32),
}

/// A call with any arguments.
pub(super) const fn any(number: i64) -> Call {
    Call { number, when: &[] }
}

/// A call if one condition holds.
pub(super) const fn when(number: i64, when: &'static [When]) -> Call {
    Call { number, when }
}
