//! The name and the subnet of the bridge, where the configuration leaves them to the engine.

use std::time::Duration;

use ipnet::Ipv4Net;

use super::addresses::{AUTO, Range};
use super::error::NetworkError;
use super::links::Links;
use super::mark::{BridgeLock, LockError, owner};
use crate::config;

/// Bridges that `auto` tries: `cloude0` and so on.
const BRIDGES: usize = 100;
/// Pause between two attempts to take the lock of [`choosing`].
const PAUSE: Duration = Duration::from_millis(20);
const ATTEMPTS: usize = 500;

/// The bridge to create.
pub struct Place {
    pub bridge: String,
    pub lock: BridgeLock,
    pub range: Range,
    /// Held until the bridge has its address, so that no two engines choose the same subnet.
    pub choosing: BridgeLock,
}

/// Chooses the bridge and its subnet. Refuses a bridge that another engine uses, or that Cloude did not create.
pub async fn choose(links: &Links, config: &config::Network) -> Result<Place, NetworkError> {
    let choosing = choosing().await?;
    let (bridge, lock) = if config.bridge == AUTO {
        free_bridge(links).await?
    } else {
        let lock = match BridgeLock::take(&config.bridge) {
            Ok(lock) => lock,
            Err(LockError::Held(pid)) => return Err(in_use(links, &config.bridge, pid).await),
            Err(LockError::Io(error)) => return Err(NetworkError::Lock(error)),
        };
        refuse_existing(links, &config.bridge).await?;
        (config.bridge.clone(), lock)
    };
    let range = if config.range == AUTO {
        free_range(&links.routes().await?, config)?
    } else {
        Range::parse(&config.range, config.mask.as_deref())?
    };
    Ok(Place {
        bridge,
        lock,
        range,
        choosing,
    })
}

/// Refuses a configured bridge that its set-up would refuse, so that the engine does not start with it. The network itself
/// is set up at its first use, which may find another state of the host.
///
/// Without netlink there is nothing to check.
pub async fn check(config: &config::Network) -> Result<(), NetworkError> {
    if config.bridge == AUTO {
        return Ok(());
    }
    let Ok(links) = Links::open() else {
        return Ok(());
    };
    match BridgeLock::take(&config.bridge) {
        Ok(_lock) => refuse_existing(&links, &config.bridge).await,
        Err(LockError::Held(pid)) => Err(in_use(&links, &config.bridge, pid).await),
        Err(LockError::Io(error)) => Err(NetworkError::Lock(error)),
    }
}

/// Serializes the choices of all engines. Each takes milliseconds.
async fn choosing() -> Result<BridgeLock, NetworkError> {
    for _ in 0..ATTEMPTS {
        match BridgeLock::take("") {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held(_)) => tokio::time::sleep(PAUSE).await,
            Err(LockError::Io(error)) => return Err(NetworkError::Lock(error)),
        }
    }
    Err(NetworkError::Lock(std::io::ErrorKind::TimedOut.into()))
}

async fn free_bridge(links: &Links) -> Result<(String, BridgeLock), NetworkError> {
    for number in 0..BRIDGES {
        let name = format!("cloude{number}");
        match BridgeLock::take(&name) {
            Ok(lock) if links.find(&name).await.is_none() => return Ok((name, lock)),
            Ok(_) | Err(LockError::Held(_)) => {}
            Err(LockError::Io(error)) => return Err(NetworkError::Lock(error)),
        }
    }
    Err(NetworkError::NoBridge(BRIDGES))
}

async fn in_use(links: &Links, bridge: &str, pid: Option<i32>) -> NetworkError {
    let link = links.find(bridge).await;
    let alias = link.and_then(|link| link.alias);
    NetworkError::BridgeInUse {
        bridge: bridge.to_owned(),
        process: pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string()),
        run_dir: owner(alias.as_deref()).unwrap_or("unknown").to_owned(),
    }
}

/// Refuses a link that exists. Those of this engine were removed before.
async fn refuse_existing(links: &Links, bridge: &str) -> Result<(), NetworkError> {
    let Some(link) = links.find(bridge).await else {
        return Ok(());
    };
    let bridge = bridge.to_owned();
    Err(match owner(link.alias.as_deref()) {
        Some(run_dir) => NetworkError::BridgeLeft {
            bridge,
            run_dir: run_dir.to_owned(),
        },
        None => NetworkError::ForeignBridge(bridge),
    })
}

/// Subnets that `auto` tries: 172.30.0.0/16 down to 172.16.0.0/16, then 10.64.0.0/16 to 10.127.0.0/16.
fn candidates() -> impl Iterator<Item = Ipv4Net> {
    let first = (16..=30).rev().map(|second| [172, second, 0, 0]);
    let rest = (64..=127).map(|second| [10, second, 0, 0]);
    first
        .chain(rest)
        .map(|network| Ipv4Net::new_assert(network.into(), 16))
}

/// The first candidate without a route, an exception of `network.allow` or a name server in it.
fn free_range(routes: &[Ipv4Net], config: &config::Network) -> Result<Range, NetworkError> {
    let allow = config.allow.iter().filter_map(|net| net.parse().ok());
    let dns = config.dns.iter().copied().map(Ipv4Net::from);
    let taken: Vec<Ipv4Net> = routes.iter().copied().chain(allow).chain(dns).collect();
    let overlap = |a: &Ipv4Net, b: &Ipv4Net| a.contains(b) || b.contains(a);
    let free = candidates().find(|net| !taken.iter().any(|other| overlap(net, other)));
    let free = free.ok_or(NetworkError::NoRange)?;
    Ok(Range::parse(&free.to_string(), None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(routes: &[&str]) -> Result<String, NetworkError> {
        let routes: Vec<Ipv4Net> = routes.iter().map(|net| net.parse().unwrap()).collect();
        free_range(&routes, &config::Network::default()).map(|range| range.cidr())
    }

    #[test]
    fn a_subnet_without_routes_is_chosen() {
        assert_eq!(chosen(&[]).unwrap(), "172.30.0.0/16");
        assert_eq!(chosen(&["172.30.4.0/24"]).unwrap(), "172.29.0.0/16");
        assert_eq!(chosen(&["172.16.0.0/12"]).unwrap(), "10.64.0.0/16");
        let full = ["172.16.0.0/12", "10.0.0.0/8"];
        assert!(matches!(chosen(&full), Err(NetworkError::NoRange)));
    }

    #[test]
    fn a_subnet_with_a_name_server_is_not_chosen() {
        let config = config::Network {
            dns: vec![[172, 30, 9, 9].into()],
            allow: vec!["172.29.1.0/24".into()],
            ..config::Network::default()
        };
        assert_eq!(free_range(&[], &config).unwrap().cidr(), "172.28.0.0/16");
    }
}
