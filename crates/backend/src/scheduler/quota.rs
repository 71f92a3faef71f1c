//! Quotas of a tenant.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::config::Quota;
use crate::tenant::Tenant;

/// The quotas of one tenant. 0: no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quotas {
    /// Executions that wait for a VM. The same number may wait for their image.
    pub queued: usize,
    /// VMs at once.
    pub concurrent: usize,
    /// MiB of those VMs.
    pub memory_mib: u64,
    /// Requests for executions per second, and at once after a pause.
    pub requests_per_s: u32,
}

/// A tenant has reached a quota.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("your quota is used up: `{quota}` is {limit}; try again in {retry_after_s} s")]
pub struct QuotaExceeded {
    /// The configuration key.
    pub quota: &'static str,
    /// Its value.
    pub limit: u64,
    /// An estimate of when a request is accepted again, in seconds, at least 1.
    pub retry_after_s: u64,
}

impl From<&Quota> for Quotas {
    fn from(config: &Quota) -> Self {
        Quotas {
            queued: config.queued,
            concurrent: config.concurrent,
            memory_mib: config.memory_mib,
            requests_per_s: config.requests_per_s,
        }
    }
}

impl Quotas {
    /// True if a tenant with these VMs may start another one of `memory_mib`.
    pub fn allow_vm(&self, running: usize, used_mib: u64, memory_mib: u64) -> bool {
        (self.concurrent == 0 || running < self.concurrent)
            && (self.memory_mib == 0 || used_mib + memory_mib <= self.memory_mib)
    }
}

/// Buckets above this number are removed once they are full: a full bucket says as much as none.
const BUCKETS: usize = 1024;

/// A token bucket for each tenant.
#[derive(Debug, Default)]
pub struct Rates {
    buckets: HashMap<Tenant, Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When it is full, if nothing is taken.
    full_at: Instant,
}

impl Rates {
    /// Takes a token. `per_s`: tokens that a bucket gets per second, and holds; 0: no limit.
    pub fn take(&mut self, tenant: &Tenant, per_s: u32, now: Instant) -> Result<(), QuotaExceeded> {
        if per_s == 0 {
            return Ok(());
        }
        if self.buckets.len() >= BUCKETS {
            self.buckets.retain(|_, bucket| bucket.full_at > now);
        }
        let token = Duration::from_secs(1) / per_s;
        let bucket = self.buckets.entry(tenant.clone());
        let bucket = bucket.or_insert(Bucket { full_at: now });
        let full_at = bucket.full_at.max(now) + token;
        // An empty bucket is full after one second. Division of the second by `per_s` rounds down.
        if full_at > now + Duration::from_secs(1) {
            return Err(QuotaExceeded {
                quota: "quota.requests_per_s",
                limit: per_s.into(),
                retry_after_s: 1,
            });
        }
        bucket.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refills_at_its_rate() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let (one, other) = (Tenant::of_key("1"), Tenant::of_key("2"));
        let mut take = |tenant, ms| rates.take(tenant, 3, start + Duration::from_millis(ms));
        for _ in 0..3 {
            take(&one, 0).unwrap();
        }
        let error = take(&one, 0).unwrap_err();
        assert_eq!((error.quota, error.limit), ("quota.requests_per_s", 3));
        take(&other, 0).unwrap();
        assert!(take(&one, 333).is_err());
        take(&one, 334).unwrap();
        assert!(take(&one, 334).is_err());
        for _ in 0..3 {
            take(&one, 10_000).unwrap();
        }
        assert!(
            take(&one, 10_000).is_err(),
            "a pause gives no more than one second's"
        );
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        for number in 0..10 * BUCKETS {
            let now = start + Duration::from_millis(10 * number as u64);
            rates
                .take(&Tenant::of_key(&number.to_string()), 1, now)
                .unwrap();
        }
        assert!(rates.buckets.len() <= BUCKETS);
    }
}
