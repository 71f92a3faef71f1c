//! CPU baselines: named sets of the CPU features that a guest sees.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::features::Policy;

/// A named set of CPU features.
///
/// A snapshot can be restored on every host with an equal CPU model. `host` is equal on processors of one model and
/// stepping with the same microcode features. A named baseline is equal on every processor of a vendor that has its
/// features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CpuBaseline {
    /// Every feature of the list in `features.rs` that the host has.
    #[default]
    #[serde(rename = "host")]
    Host,
    /// The x86-64 psABI's level 2 (SSE4.2, POPCNT, CMPXCHG16B): Intel since Nehalem, AMD since Bulldozer.
    #[serde(rename = "x86-64-v2")]
    V2,
    /// The psABI's level 3 (AVX2, BMI, FMA), with AES, RDRAND and SMEP: Intel since Haswell, AMD since Zen.
    #[serde(rename = "x86-64-v3")]
    V3,
}

impl CpuBaseline {
    /// Every baseline.
    pub const ALL: [Self; 3] = [Self::Host, Self::V2, Self::V3];

    /// The name in options and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::V2 => "x86-64-v2",
            Self::V3 => "x86-64-v3",
        }
    }

    /// True if a feature with this policy is visible, provided that the processor has it.
    pub fn allows(self, policy: Policy, vendor: Vendor) -> bool {
        match policy {
            Policy::Always => true,
            Policy::V2 => true,
            Policy::V3 => self != Self::V2,
            Policy::V3Intel => match self {
                Self::Host => true,
                Self::V2 => false,
                Self::V3 => vendor == Vendor::Intel,
            },
            Policy::Host => self == Self::Host,
            Policy::Intel => self == Self::Host && vendor == Vendor::Intel,
            Policy::Amd => self == Self::Host && vendor == Vendor::Amd,
            Policy::Dynamic | Policy::Never => false,
        }
    }
}

impl fmt::Display for CpuBaseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CpuBaseline {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|one| one.name() == text);
        found.ok_or_else(|| {
            format!("`{text}` is no CPU baseline; use `host`, `x86-64-v2` or `x86-64-v3`")
        })
    }
}

/// The vendor, as far as CPUID leaves differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// Intel, and vendors with Intel's leaves (Zhaoxin).
    Intel,
    /// AMD and Hygon.
    Amd,
}

impl Vendor {
    /// From the 12 letters of leaf 0.
    pub fn of(name: &str) -> Self {
        match name {
            "AuthenticAMD" | "HygonGenuine" => Self::Amd,
            _ => Self::Intel,
        }
    }

    /// Family, model and stepping (leaf 1, EAX) of a named baseline: Haswell-EP for Intel and the first EPYC for AMD,
    /// the oldest server processors with x86-64-v3. Guests then apply every workaround that a later processor may need.
    pub fn signature(self) -> u32 {
        match self {
            Self::Intel => 0x0003_06f2,
            Self::Amd => 0x0080_0f12,
        }
    }
}
