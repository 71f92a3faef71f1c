//! The version of an image's program, where the image says it.

use cloude_protocol::boot::ImageConfig;

/// Official images name it in their environment, before the versions of other things: `PYTHON_VERSION`,
/// `NODE_VERSION`, `GOLANG_VERSION`.
pub(super) fn of_config(config: &ImageConfig) -> Option<String> {
    let variables = config.env.iter().filter_map(|line| line.split_once('='));
    let mut versions = variables.filter(|(name, _)| name.ends_with("_VERSION"));
    let (_, version) = versions.next()?;
    // `jdk-21.0.9+10`
    let number = version.trim_start_matches(|c: char| !c.is_ascii_digit());
    Some(number.to_owned())
}

/// The upstream version of the first package that was asked for; `installed` has
/// `name_version_architecture`. Debian Policy 5.6.12: `[epoch:]upstream[-revision]`.
pub(super) fn of_packages(asked: &[String], installed: &[String]) -> Option<String> {
    let first = asked.first()?;
    let version = installed.iter().find_map(|package| {
        let (name, rest) = package.split_once('_')?;
        (name == first).then_some(rest.split_once('_')?.0)
    })?;
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let upstream = version.rsplit_once('-').map_or(version, |(it, _)| it);
    Some(upstream.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_names_it_in_its_environment() {
        let env = ["PATH=/bin", "NODE_VERSION=22.12.0", "YARN_VERSION=1.22.22"];
        let config = ImageConfig {
            env: env.map(str::to_owned).to_vec(),
            ..ImageConfig::default()
        };
        assert_eq!(of_config(&config).as_deref(), Some("22.12.0"));
        assert_eq!(of_config(&ImageConfig::default()), None);
        let java = ImageConfig {
            env: vec!["JAVA_VERSION=jdk-21.0.9+10".to_owned()],
            ..ImageConfig::default()
        };
        assert_eq!(of_config(&java).as_deref(), Some("21.0.9+10"));
    }

    #[test]
    fn a_package_has_it_between_epoch_and_revision() {
        let of = |asked: &str, installed: &str| of_packages(&[asked.into()], &[installed.into()]);
        assert_eq!(of("gcc", "gcc_4:12.2.0-3_amd64").as_deref(), Some("12.2.0"));
        assert_eq!(of("a", "a_1.19~1_all").as_deref(), Some("1.19~1"));
        assert_eq!(of("gcc", "gcc-12_12.2.0-14_amd64"), None);
    }
}
