//! docs/configuration.md has every configuration key with its default, every environment variable, and no other.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use cloude_backend::config::{Config, apply_env};

const PAGE: &str = include_str!("../../../docs/configuration.md");
/// The serialized default configuration omits it, because its default is that of `network.range`.
const WITHOUT_DEFAULT: &str = "network.mask";
/// Their defaults depend on the host. The page describes them in words.
const PATHS: [&str; 6] = [
    "state_dir",
    "languages",
    "kernel",
    "images.dir",
    "agent.binary",
    "vm.worker",
];

/// A row of the page's tables.
struct Row {
    default: &'static str,
    variable: Option<&'static str>,
}

/// The rows by key: `| key | default | meaning | variable | flag |`.
fn documented() -> BTreeMap<&'static str, Row> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [key, default, _, variable, _] = cells[..] else {
            panic!("not five columns: {line}");
        };
        let variable = (!variable.is_empty()).then(|| variable.trim_matches('`'));
        (key.trim_matches('`'), Row { default, variable })
    })
    .collect()
}

/// The values of the default configuration by `key`, `table.key` or `table.table.key`.
fn defaults() -> BTreeMap<String, toml::Value> {
    let mut values = BTreeMap::new();
    flatten(
        "",
        toml::from_str(&Config::default().to_toml()).unwrap(),
        &mut values,
    );
    values
}

fn flatten(prefix: &str, table: toml::Table, values: &mut BTreeMap<String, toml::Value>) {
    for (name, value) in table {
        match value {
            toml::Value::Table(inner) => flatten(&format!("{prefix}{name}."), inner, values),
            value => {
                values.insert(format!("{prefix}{name}"), value);
            }
        }
    }
}

/// A default as the page writes it.
fn shown(value: &toml::Value) -> String {
    match value {
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::String(text) if text.is_empty() => "empty".into(),
        toml::Value::String(text) => format!("`{text}`"),
        toml::Value::Array(values) if values.is_empty() => "none".into(),
        toml::Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(", "),
        value => format!("`{value}`"),
    }
}

#[test]
fn the_page_has_exactly_the_keys_of_the_configuration() {
    let mut expected: BTreeSet<String> = defaults().into_keys().collect();
    expected.insert(WITHOUT_DEFAULT.to_owned());

    let documented = documented().into_keys().map(str::to_owned).collect();

    let missing: Vec<_> = expected.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&expected).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "docs/configuration.md lacks {missing:?} and has {unknown:?}, which are no keys"
    );
}

#[test]
fn the_page_has_the_default_of_every_key() {
    let documented = documented();

    let mut wrong = Vec::new();
    for (key, value) in defaults() {
        let Some(row) = documented.get(key.as_str()) else {
            continue;
        };
        if !PATHS.contains(&key.as_str()) && row.default != shown(&value) {
            wrong.push(format!("`{key}`: {} is {}", row.default, shown(&value)));
        }
    }

    assert!(wrong.is_empty(), "docs/configuration.md: {wrong:?}");
}

#[test]
fn the_page_has_exactly_the_environment_variables() {
    let variables = RefCell::new(BTreeSet::new());
    let record = |name: &str| {
        variables.borrow_mut().insert(name.to_owned());
        None
    };
    apply_env(&mut Config::default(), &record).unwrap();
    let expected = variables.into_inner();

    let rows = documented().into_values();
    let documented = rows
        .filter_map(|row| row.variable.map(str::to_owned))
        .collect();

    let missing: Vec<_> = expected.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&expected).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "docs/configuration.md lacks {missing:?} and has {unknown:?}, which do not exist"
    );
}
