//! Paused forks, made ahead of demand.

pub mod policy;
