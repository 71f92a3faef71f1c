//! Landlock: after this no path can be used, whatever directory a descriptor leads to.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus,
    Scope,
};

use super::error::JailError;
use super::walls::Wall;

/// Denies every access that this kernel's Landlock knows: files (5.13), TCP ports (6.7), abstract Unix sockets and
/// signals to processes outside (6.12).
pub(super) fn deny_all() -> Result<(), JailError> {
    let failed = |error: landlock::RulesetError| {
        JailError::wall(Wall::Landlock, "landlock_restrict_self")(std::io::Error::other(error))
    };
    let abi = ABI::V6;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(abi)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(abi)))
        .and_then(|ruleset| ruleset.create())
        .and_then(|ruleset| ruleset.restrict_self())
        .map_err(failed)?;
    match status.ruleset {
        RulesetStatus::NotEnforced => {
            Err(JailError::wall(Wall::Landlock, "landlock_create_ruleset")(
                std::io::Error::from_raw_os_error(libc::EOPNOTSUPP),
            ))
        }
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Ok(()),
    }
}
