//! Bodies of `POST /v1/executions` and `POST /run`: parsed, admitted, and then what the agent would check.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use cloude_backend::config::Config;
use cloude_backend::jobs::fuzzing::admit;
use cloude_engine::languages::Languages;
use cloude_fuzz::bounded;
use cloude_protocol::api::{ExecutionRequest, RunRequest};
use libfuzzer_sys::fuzz_target;

/// The languages of this checkout.
static LANGUAGES: LazyLock<Languages> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../languages");
    Languages::load(&dir).expect("the languages of the checkout")
});
static CONFIG: LazyLock<Config> = LazyLock::new(Config::default);

fn check(request: &ExecutionRequest) {
    let Ok(admitted) = admit("id", request, &LANGUAGES, &CONFIG, 4096) else {
        return;
    };
    assert!(admitted.bytes <= CONFIG.limits.code_bytes);
    assert!((1..=8).contains(&admitted.vcpus) && admitted.memory_mib <= 4096);
    // The agent refuses nothing that was admitted.
    cloude_agent::execute::check(&admitted.execute).expect("the agent accepts an admitted request");
}

fuzz_target!(|bytes: &[u8]| {
    LazyLock::force(&LANGUAGES);
    LazyLock::force(&CONFIG);
    // Patterns of a language are compiled for each request.
    bounded(64 << 20, || {
        if let Ok(request) = serde_json::from_slice::<ExecutionRequest>(bytes) {
            let written = serde_json::to_vec(&request).unwrap();
            assert_eq!(
                serde_json::from_slice::<ExecutionRequest>(&written).unwrap(),
                request
            );
            check(&request);
        }
        if let Ok(RunRequest { language, code }) = serde_json::from_slice(bytes) {
            check(&ExecutionRequest {
                language,
                code,
                ..Default::default()
            });
        }
    });
});
