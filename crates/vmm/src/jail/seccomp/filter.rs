//! Compiles lists to seccomp filters (seccompiler) and installs them.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::calls::{Call, When};

/// A filter that allows the calls of `lists` and raises SIGSYS for any other. A call may be in several lists: it is
/// allowed where one of them allows it.
pub(super) fn allow_only(lists: &[&[Call]]) -> io::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in lists.iter().copied().flatten() {
        let rules = rules.entry(call.number).or_default();
        for condition in call.when {
            rules.push(rule(*condition)?);
        }
    }
    compile(rules, SeccompAction::Trap, SeccompAction::Allow)
}

/// A filter that answers clone3(2) with ENOSYS and allows everything else. The flags of clone3 lie in memory, where no
/// filter can read them; libc then uses clone(2), whose flags are an argument.
pub(super) fn refuse_clone3() -> io::Result<BpfProgram> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let refused = SeccompAction::Errno(libc::ENOSYS as u32);
    compile(rules, SeccompAction::Allow, refused)
}

/// Installs a filter for the calling thread and the threads that it starts.
pub(super) fn apply(program: &BpfProgram) -> io::Result<()> {
    seccompiler::apply_filter(program).map_err(io::Error::other)
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> io::Result<BpfProgram> {
    SeccompFilter::new(rules, otherwise, listed, TargetArch::x86_64)
        .and_then(BpfProgram::try_from)
        .map_err(io::Error::other)
}

fn rule(condition: When) -> io::Result<SeccompRule> {
    let (argument, operator, value) = match condition {
        When::Equals(argument, value) => (argument, SeccompCmpOp::Eq, value),
        When::Differs(argument, value) => (argument, SeccompCmpOp::Ne, value),
        When::Bits {
            argument,
            mask,
            value,
        } => (argument, SeccompCmpOp::MaskedEq(mask.into()), value),
    };
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into())
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(io::Error::other)
}
