//! Every message of `cloude` in one table. To read it:
//! `cargo nextest run -p cloude-cli error::table --no-capture`.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use super::*;

/// One value for each variant of an enum. The match beside them has an arm for each value alone, so that a
/// variant without a value here does not compile.
macro_rules! one_of_each {
    ($name:ident: $($variant:ident $fields:tt),+ $(,)?) => {{
        let values = [$($name::$variant $fields),+];
        for value in &values {
            match value {
                $($name::$variant { .. } => {})+
            }
        }
        values
    }};
}

/// Enum, message, exit code.
type Row = (&'static str, String, u8);

fn not_found() -> io::Error {
    io::Error::from_raw_os_error(2)
}

fn url() -> String {
    "http://127.0.0.1:8080".to_owned()
}

fn usage_errors() -> Vec<Row> {
    let values = one_of_each![UsageError:
        BackendUrl { url: "http://".to_owned(), origin: "--backend".to_owned(), reason: "empty host".to_owned() },
        ConfigFile { path: PathBuf::from("config.toml"), line: 2, reason: "unknown field `x`".to_owned() },
        Variable { name: "CLOUDE_BACKEND" },
        RetryFor { text: "soon".to_owned(), origin: "CLOUDE_RETRY_FOR".to_owned(), error: QuantityError::NotANumber },
        ReadFile { path: PathBuf::from("missing.py"), error: not_found() },
        ReadStdin { error: io::Error::from_raw_os_error(5) },
        NotUtf8 { name: "x.py".to_owned(), offset: 2 },
        StdinTwice {},
        NotATerminal {},
        NoProgram {},
        NoLanguage {},
        NoExtension { path: PathBuf::from("script") },
        UnknownExtension { extension: "xyz".to_owned(), languages: vec!["c".to_owned(), "python".to_owned()] },
        FileWithoutName { spec: "/".to_owned() },
        NameNotUtf8 { path: PathBuf::from("src/x") },
        NotRegular { path: PathBuf::from("src/link"), kind: "a symbolic link" },
        TooMuch { limit: "999 files" },
        EnvWithoutName { spec: "=x".to_owned() },
        EnvUnset { name: "TOKEN".to_owned() },
        SecretUnset { name: "TOKEN".to_owned() },
        Label { spec: "x".to_owned() },
        Limit { spec: "speed=1".to_owned(), reason: "no limit has this name".to_owned() },
        LimitTwice { name: "wall_time".to_owned() },
        LanguageVersion { spec: "python@".to_owned() },
        IdempotencyKey {},
        ExecutionId { id: "../run".to_owned() },
        KeyId { id: "cloude_3f".to_owned() },
        ApiKey { source_name: "CLOUDE_API_KEY".to_owned() },
        NoCertificate { path: PathBuf::from("ca.pem") },
        UnknownLanguage { name: "befunge".to_owned(), languages: vec!["c".to_owned(), "python".to_owned()] },
        NoLanguageReady {},
        TemplateAmbiguous { prefix: "3f".to_owned() },
        TemplateUnknown { prefix: "ff".to_owned() },
    ];
    rows("UsageError", values.map(CliError::from))
}

fn quantity_errors() -> Vec<Row> {
    one_of_each![QuantityError:
        NotANumber {},
        Unit { unit: "year".to_owned(), known: "ms, s, m or h" },
        Duration {},
        Count {},
        Size { unit: "MiB" },
    ]
    .map(|error| ("QuantityError", error.to_string(), exit::USAGE))
    .to_vec()
}

fn backend_errors() -> Vec<Row> {
    let version = "0.1.0";
    let values = one_of_each![BackendError:
        HttpClient { reason: "no trusted root certificates".to_owned() },
        Encode { reason: "key must be a string".to_owned() },
        Connect { url: url(), reason: "Connection refused (os error 111)".to_owned() },
        NoAnswer { url: url(), reason: "connection closed before message completed".to_owned() },
        Broken { url: url(), reason: "Connection reset by peer (os error 104)".to_owned() },
        Closed { url: url() },
        Detached { url: url(), reason: "the server is shutting down".to_owned() },
        ContentType { url: url(), found: "text/html".to_owned(), expected: "application/x-ndjson", version },
        Body { url: url(), reason: "missing field `id` at line 1 column 2".to_owned(), version },
        NotClouded { url: url(), status: 502 },
        Busy { message: "64 executions are queued".to_owned(), retry_after_s: Some(3) },
        Unavailable { message: "the server stops".to_owned(), retry_after_s: Some(5) },
        Failed { status: 500, message: "internal server error".to_owned() },
        Unauthorized { message: "this server requires an API key".to_owned(), has_key: false },
        Refused { status: 404, message: "no execution `7d0c`".to_owned(), field: None },
    ];
    rows("BackendError", values.map(CliError::from))
}

fn execution_errors() -> Vec<Row> {
    let values = one_of_each![ExecutionError:
        NotRun { reason: "there is no image of python".to_owned() },
        VmStopped { subject: Subject::Program, reason: "kernel panic".to_owned() },
        OutputLimit { subject: Subject::Program },
        NoExitCode {},
    ];
    rows("ExecutionError", values.map(CliError::from))
}

fn local_errors() -> Vec<Row> {
    let values = one_of_each![LocalError:
        Terminal { error: io::Error::from_raw_os_error(5) },
        NoInitramfsBuilder {},
        Execute { program: PathBuf::from("/usr/bin/cloude-initramfs"), error: io::Error::from_raw_os_error(8) },
        Man { dir: PathBuf::from("/usr/share/man/man1"), error: io::Error::from_raw_os_error(2) },
        Runtime { error: io::Error::from_raw_os_error(11) },
        Stdout { error: io::Error::from_raw_os_error(28) },
        ArtifactPath { path: "../x".to_owned() },
        ArtifactExists { path: PathBuf::from("out/x.csv") },
        ArtifactWrite { path: PathBuf::from("out/x.csv"), error: io::Error::from_raw_os_error(28) },
        Json { error: <serde_json::Error as serde::ser::Error>::custom("key must be a string") },
    ];
    rows("LocalError", values.map(CliError::from))
}

fn endings() -> Vec<Row> {
    let subject = Subject::Program;
    one_of_each![Ending:
        Signal { subject, signal: Some(11) },
        TimeLimit { subject, cpu: false, after_s: Some(10.0) },
        Memory { subject, message: None },
        Cancelled {},
    ]
    .map(|ending| ("Ending", ending.to_string(), ending.exit_code()))
    .to_vec()
}

fn rows<const N: usize>(name: &'static str, errors: [CliError; N]) -> Vec<Row> {
    errors
        .map(|error| (name, error.to_string(), error.exit_code()))
        .to_vec()
}

#[test]
fn every_message_is_one_line_with_a_documented_exit_code() {
    let table = [
        usage_errors(),
        quantity_errors(),
        backend_errors(),
        execution_errors(),
        local_errors(),
        endings(),
        rows("CliError", [CliError::BrokenPipe]),
    ]
    .concat();

    println!("| enum | message | exit code |\n|---|---|---|");
    for (name, message, code) in &table {
        println!("| {name} | {message} | {code} |");
    }

    let documented = [2, 124, 125, 130, 137, 139, 141];
    let distinct: HashSet<&str> = table.iter().map(|row| row.1.as_str()).collect();
    assert_eq!(distinct.len(), table.len(), "two messages are the same");
    for (name, message, code) in &table {
        assert!(documented.contains(code), "{name}: {code}: {message}");
        assert!(!message.contains(['\n', '|']), "{name}: {message}");
        assert!(message.len() < 250 && !message.ends_with('.'), "{message}");
    }
}
