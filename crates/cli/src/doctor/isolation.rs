//! The walls around each VM's process, as the backend found them at its start.

use cloude_protocol::api::IsolationWall;

use super::check::Check;

/// One line for the walls that VMs have, and one for each that they lack. None for a backend that reports no walls.
pub fn checks(walls: &[IsolationWall]) -> Vec<Check> {
    let mut checks = Vec::new();
    let has: Vec<_> = walls
        .iter()
        .filter(|wall| wall.missing.is_none())
        .map(|wall| wall.name.as_str())
        .collect();
    if !has.is_empty() {
        checks.push(Check::ok("isolation", has.join(", ")));
    }
    for wall in walls {
        if let Some(reason) = &wall.missing {
            let name = format!("isolation: {}", wall.name);
            let found = format!("VMs lack it: {reason}");
            checks.push(Check::warning(&name, found, wall.fix.as_str()));
        }
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    fn wall(name: &str, missing: Option<&str>) -> IsolationWall {
        IsolationWall {
            name: name.to_owned(),
            missing: missing.map(str::to_owned),
            fix: "start clouded as root".to_owned(),
        }
    }

    #[test]
    fn a_missing_wall_is_a_warning_with_its_reason_and_fix() {
        let checks = checks(&[wall("seccomp", None), wall("uid", Some("not root"))]);
        assert_eq!(checks[0].found, "seccomp");
        assert_eq!(checks[1].name, "isolation: uid");
        assert_eq!(checks[1].state, State::Warning);
        assert_eq!(checks[1].found, "VMs lack it: not root");
        assert_eq!(checks[1].fix.as_deref(), Some("start clouded as root"));
    }

    #[test]
    fn an_older_backend_has_no_line() {
        assert!(checks(&[]).is_empty());
    }
}
