//! Platforms of images, and which of them can run in place of another.

use std::fmt;
use std::str::FromStr;

/// An operating system and an architecture, in the names of Go: `linux/amd64`, `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// Such as `v8`. None means v1 of amd64, and any variant of other architectures.
    pub variant: Option<String>,
}

impl Default for Platform {
    fn default() -> Self {
        Platform {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            variant: None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant
            .as_ref()
            .map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// A malformed platform, or one that this machine cannot run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// Not `os/architecture[/variant]`.
    #[error("invalid platform `{0}`: write os/architecture, such as linux/amd64")]
    Form(String),
    /// A level of x86-64 above the one of this machine.
    #[error(
        "an image for {platform} does not run on this machine, whose processor lacks {missing}; leave out the variant"
    )]
    Processor {
        /// The requested platform.
        platform: String,
        /// CPU features.
        missing: String,
    },
}

/// Features that each level of x86-64 adds (System V ABI, AMD64 supplement, "Micro-Architecture Levels"), without those
/// that all processors with the others have.
const LEVELS: [(u8, &[&str]); 3] = [
    (2, &["cmpxchg16b", "popcnt", "sse4.2", "ssse3"]),
    (
        3,
        &["avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe"],
    ),
    (
        4,
        &["avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"],
    ),
];

#[cfg(target_arch = "x86_64")]
fn host_has(feature: &str) -> bool {
    macro_rules! detected {
        ($($name:tt)*) => {
            match feature {
                $($name => std::arch::is_x86_feature_detected!($name),)*
                _ => false,
            }
        };
    }
    detected!(
        "cmpxchg16b" "popcnt" "sse4.2" "ssse3" "avx2" "bmi1" "bmi2" "f16c" "fma" "lzcnt" "movbe"
        "avx512bw" "avx512cd" "avx512dq" "avx512f" "avx512vl"
    )
}

impl Platform {
    /// Checks that this processor has the requested level of x86-64. Other architectures are not checked: their images
    /// are for other machines.
    pub(crate) fn check_host(&self) -> Result<(), PlatformError> {
        #[cfg(target_arch = "x86_64")]
        self.check_features(host_has)?;
        Ok(())
    }

    fn check_features(&self, has: impl Fn(&str) -> bool) -> Result<(), PlatformError> {
        let Some(wanted) = self.level() else {
            return Ok(());
        };
        let needed = LEVELS.iter().filter(|(level, _)| *level <= wanted);
        let missing: Vec<&str> = needed
            .flat_map(|(_, features)| features.iter().copied())
            .filter(|feature| !has(feature))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(PlatformError::Processor {
            platform: self.to_string(),
            missing: missing.join(", "),
        })
    }

    /// The level of x86-64 for amd64, 1 without a variant.
    fn level(&self) -> Option<u8> {
        if self.architecture != "amd64" {
            return None;
        }
        match self.variant.as_deref() {
            None | Some("v1") => Some(1),
            Some("v2") => Some(2),
            Some("v3") => Some(3),
            Some("v4") => Some(4),
            Some(_) => None,
        }
    }

    /// The rank of an image for `self` if `wanted` is requested; none if it does not run there. As in containerd, a lower
    /// level of x86-64 can replace a higher one, and not the reverse.
    pub(crate) fn serves(&self, wanted: &Platform) -> Option<u8> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        match (self.level(), wanted.level()) {
            (Some(level), Some(wanted)) => (level <= wanted).then_some(level),
            _ if self.variant == wanted.variant => Some(2),
            _ if self.architecture != "amd64" && wanted.variant.is_none() => Some(1),
            _ => None,
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(PlatformError::Form(text.to_owned())),
        };
        if os.is_empty() || architecture.is_empty() || variant == Some("") {
            return Err(PlatformError::Form(text.to_owned()));
        }
        Ok(Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn a_lower_level_replaces_a_higher_one() {
        let rank = |it: &str, wanted: &str| platform(it).serves(&platform(wanted));
        assert_eq!(rank("linux/amd64/v3", "linux/amd64"), None);
        assert_eq!(rank("linux/amd64/v1", "linux/amd64"), Some(1));
        assert_eq!(rank("linux/amd64", "linux/amd64/v3"), Some(1));
        assert_eq!(rank("linux/amd64/v2", "linux/amd64/v3"), Some(2));
        assert_eq!(rank("linux/amd64/v4", "linux/amd64/v3"), None);
    }

    #[test]
    fn other_architectures_accept_any_variant() {
        let rank = |it: &str, wanted: &str| platform(it).serves(&platform(wanted));
        assert_eq!(rank("linux/arm64/v8", "linux/arm64"), Some(1));
        assert_eq!(rank("linux/arm/v6", "linux/arm/v7"), None);
        assert_eq!(rank("linux/arm64", "linux/amd64"), None);
    }

    #[test]
    fn a_missing_level_is_refused_with_its_features() {
        let lacks_avx2 = |feature: &str| feature != "avx2";
        let error = platform("linux/amd64/v3").check_features(lacks_avx2);
        assert!(error.is_err_and(|error| error.to_string().contains("lacks avx2;")));
        assert_eq!(
            platform("linux/amd64/v2").check_features(lacks_avx2),
            Ok(())
        );
        assert_eq!(platform("linux/arm64").check_features(|_| false), Ok(()));
    }
}
