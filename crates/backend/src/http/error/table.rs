//! Every error of the API in one table. To read it:
//! `cargo nextest run -p cloude-backend error::table --no-capture`.

use cloude_engine::{Failure, QueueFull};

use super::*;
use crate::scheduler::QuotaExceeded;
use crate::store::FailedWrites;

/// One value for each variant of an enum. The match beside them has an arm for each value alone, so that a variant
/// without a value here does not compile.
macro_rules! one_of_each {
    ($name:ident: $($variant:ident $fields:tt),+ $(,)?) => {{
        let values = vec![$($name::$variant $fields),+];
        for value in &values {
            match value {
                $($name::$variant { .. } => {})+
            }
        }
        values
    }};
}

const PAGE: &str = include_str!("../../../../../docs/api.md");

/// Enum, response.
type Row = (&'static str, ApiError);

fn rows<E: Into<ApiError>>(name: &'static str, errors: Vec<E>) -> Vec<Row> {
    let errors = errors.into_iter();
    errors.map(|error| (name, error.into())).collect()
}

fn queue_full() -> QueueFull {
    QueueFull {
        waiting: 256,
        retry_after_s: 17,
    }
}

fn json_error() -> serde_json::Error {
    serde_json::from_str::<u8>("-1").unwrap_err()
}

fn io_error() -> std::io::Error {
    std::io::Error::from_raw_os_error(28)
}

fn failed_writes() -> FailedWrites {
    FailedWrites {
        error: "database or disk is full".into(),
        writes: 3,
        bytes: 70 << 20,
    }
}

fn request_errors() -> Vec<Row> {
    let errors = one_of_each![RequestError:
        NoEndpoint {},
        Method {},
        NotJson {},
        EmptyBody {},
        LargeBody {},
        SlowBody {},
        BodiesFull {},
        UnreadableBody { 0: "error reading a body from connection".into() },
        InvalidBody { 0: json_error() },
        InvalidField { field: "limits.vcpus".into(), error: json_error() },
        Query { 0: "limit: invalid digit found in string".into() },
        Path {},
        UnknownExecution { id: "7d0c".into() },
        UnknownBatch { id: "7d0c".into() },
        UnknownArtifact { id: "7d0c".into(), path: "out.png".into() },
        NotEnded {},
        Range { bytes: 100 },
        IdempotencyKey {},
        LastEventId {},
        UnknownTemplate { id: "3fa9".into() },
        NotWebSocket {},
        UnknownLanguage { name: "cobol".into() },
        NoHost {},
        ForeignHost { host: "evil.example".into() },
        ForeignOrigin { origin: "https://evil.example".into() },
        NoKey {},
        UnknownKey {},
        ExpiredKey {},
        RevokedKey {},
        Scope { id: "3f0a9c11d2e4".into(), scope: cloude_protocol::keys::Scope::Admin },
        UnknownKeyId { id: "3f0a9c11d2e4".into() },
        NotLocal {},
        Panic {},
    ];
    rows("RequestError", errors)
}

fn refusals() -> Vec<Row> {
    let path = || "data/in.txt".to_owned();
    let reason = || "a path must be relative to the work directory".to_owned();
    let errors = one_of_each![Refused:
        EmptyCode {},
        UnknownLanguage { language: "cobol".into(), supported: "c, python".into() },
        TooLarge { bytes: 10_485_761, limit: 10_485_760 },
        TwoPrograms {},
        NoEntrypoint { path: "src/app.py".into() },
        Version { wanted: "3.11".into(), found: "Python 3.13.5".into() },
        NoCompiler { language: "python".into() },
        NulInArgument { field: "args[1]".into() },
        Variable { field: "env", name: "A=B".into() },
        SecretTwice { name: "TOKEN".into() },
        LongText { field: "args[1]".into(), bytes: 131_072, limit: 131_071 },
        LongTexts { bytes: 1_048_577, limit: 1_048_576 },
        TooManyFiles { count: 1000, limit: 999 },
        ProgramPath { path: "x".repeat(60), reason: "a path must be at most 4000 bytes".into() },
        FilePath { index: 2, path: "/etc/x".into(), reason: reason() },
        ProgramTwice { path: "main.py".into() },
        FileTwice { index: 2, path: path() },
        FileMode { index: 2, path: path(), mode: 0o10_000 },
        ProgramIsFolder { parent: "main.py".into(), path: "main.py/x".into() },
        FileIsFolder { parent: "data".into(), path: path() },
        User { user: "a b".into() },
        TooManyLabels { count: 33, limit: 32 },
        Label { name: "a b".into() },
        TooManyPatterns { count: 101, limit: 100 },
        Pattern { index: 0, pattern: "/etc/*".into(), reason: reason() },
        NotDurable {},
        TerminalSize { columns: 0, rows: 24 },
        InteractiveBatch {},
        NotAttachable {},
        Inputs { count: 0, limit: 1000 },
        NoCallbacks {},
        CallbackUrl { url: "ftp://x".into(), reason: "it must begin with `http://` or `https://`" },
        NoNetwork {},
        Vcpus { vcpus: 9 },
        DefaultMemory { memory_mib: 1280, limit: 1024 },
        Limit { field: "output_bytes", value: 1 << 30, least: 0, limit: 64 << 20 },
        LanguageFile { reason: "`names.entry`: unclosed group".into() },
    ];
    rows("Refused", errors)
}

fn enter_errors() -> Vec<Row> {
    let errors = one_of_each![EnterError:
        Full { 0: queue_full() },
        Quota { 0: QuotaExceeded { quota: "quota.queued", limit: 64, retry_after_s: 9 } },
    ];
    let errors = errors.into_iter().map(SubmitError::Enter).collect();
    rows("EnterError", errors)
}

fn submit_errors() -> Vec<Row> {
    let errors = one_of_each![SubmitError:
        Refused { 0: Refused::EmptyCode },
        Enter { 0: EnterError::Full(queue_full()) },
        KeyReused {},
        Draining {},
        Store { 0: StoreError::Unwritten(failed_writes()) },
    ];
    rows("SubmitError", errors)
}

fn template_errors() -> Vec<Row> {
    let pool = "this server makes no templates: `pool.enabled` is false";
    let failed = "the guest did not boot: the worker reported a triple fault";
    let errors = one_of_each![TemplateError:
        Impossible { 0: pool.into() },
        Building {},
        TooManyBuilds {},
        QueueFull { 0: queue_full() },
        Failed { 0: Failure::infrastructure(failed) },
    ];
    rows("TemplateError", errors)
}

fn build_errors() -> Vec<Row> {
    let errors = one_of_each![BuildError:
        Submit { 0: SubmitError::Draining },
        Template { 0: TemplateError::Building },
    ];
    rows("BuildError", errors)
}

fn key_errors() -> Vec<Row> {
    let errors = one_of_each![KeyError:
        Name {},
        NoScope {},
        Expiry { seconds: 0 },
        Random { 0: io_error() },
        Store { 0: StoreError::Closed },
    ];
    rows("KeyError", errors)
}

fn store_errors() -> Vec<Row> {
    let migration = rusqlite_migration::Error::InvalidUserVersion;
    let errors = one_of_each![StoreError:
        Sqlite { 0: rusqlite::Error::InvalidQuery },
        Create { 0: io_error() },
        Migration { 0: migration },
        Content { 0: json_error() },
        Newer { found: 4, known: 3 },
        KeyUsed {},
        Unwritten { 0: failed_writes() },
        Closed {},
    ];
    rows("StoreError", errors)
}

#[test]
fn every_error_has_one_line_and_a_documented_status() {
    let table: Vec<Row> = [
        request_errors(),
        refusals(),
        enter_errors(),
        submit_errors(),
        template_errors(),
        build_errors(),
        key_errors(),
        store_errors(),
    ]
    .into_iter()
    .flatten()
    .collect();

    println!("| enum | status | error | Retry-After |\n|---|---|---|---|");
    for (name, error) in &table {
        let retry = error
            .retry_after_s
            .map(|seconds| seconds.to_string())
            .unwrap_or_default();
        let (status, message) = (error.status.as_u16(), &error.message);
        println!("| {name} | {status} | {message} | {retry} |");
    }

    for (name, error) in &table {
        let message = &error.message;
        assert!(
            !message.is_empty() && !message.contains(['\n', '|']) && !message.ends_with('.'),
            "{name}: {message}"
        );
        assert!(message.len() < 250, "{name}: {message}");
        let busy = matches!(error.status.as_u16(), 429 | 503);
        assert_eq!(busy, error.retry_after_s.is_some(), "{name}: {message}");
        let row = format!("| {} | ", error.status.as_u16());
        assert!(PAGE.contains(&row), "docs/api.md lacks {row}: {message}");
    }
}

#[test]
fn an_id_in_an_error_is_short_and_printable() {
    let id = "\n".repeat(1000);

    let error = RequestError::unknown_execution(&id).to_string();

    assert!(error.len() < 300 && !error.contains('\n'), "{error}");
}
