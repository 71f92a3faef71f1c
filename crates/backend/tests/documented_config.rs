//! docs/configuration.md has every configuration key and environment variable, and no other.

use std::cell::RefCell;
use std::collections::BTreeSet;

use cloude_backend::config::{Config, apply_env};

const PAGE: &str = include_str!("../../../docs/configuration.md");
/// Has no default, so the default configuration does not show it.
const WITHOUT_DEFAULT: &str = "network.mask";

/// The first cells of the page's tables.
fn documented_keys() -> BTreeSet<String> {
    PAGE.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(key, _)| key.to_owned())
        .collect()
}

/// `key`, or `table.key`, of a whole configuration.
fn keys(config: &toml::Table) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for (name, value) in config {
        if let toml::Value::Table(table) = value {
            keys.extend(table.keys().map(|key| format!("{name}.{key}")));
        } else {
            keys.insert(name.clone());
        }
    }
    keys
}

#[test]
fn the_page_has_exactly_the_keys_of_the_configuration() {
    let config: toml::Table = toml::from_str(&Config::default().to_toml()).unwrap();
    let mut expected = keys(&config);
    expected.insert(WITHOUT_DEFAULT.to_owned());

    let documented = documented_keys();

    let missing: Vec<_> = expected.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&expected).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "docs/configuration.md lacks {missing:?} and has {unknown:?}, which are no keys"
    );
}

#[test]
fn the_page_has_every_environment_variable() {
    let variables = RefCell::new(Vec::new());
    let record = |name: &str| {
        variables.borrow_mut().push(name.to_owned());
        None
    };

    apply_env(&mut Config::default(), &record).unwrap();

    let mut missing = variables.into_inner();
    missing.retain(|name| !PAGE.contains(&format!("`{name}`")));
    assert!(
        missing.is_empty(),
        "docs/configuration.md lacks {missing:?}"
    );
}
