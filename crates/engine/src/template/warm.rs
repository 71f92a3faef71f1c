//! The requests that warm a template before it is saved.

use cloude_protocol::agent::{ExecuteRequest, File, Runner, Stage, WarmRequest};
use cloude_protocol::language::{Command, Language};

/// Output limit of a warm-up command, in bytes: enough to see why it failed.
const OUTPUT: u64 = 64 << 10;
/// Seconds by which a template's clock is set back. OpenSSL's generators reseed themselves seven
/// minutes after they last did by the wall clock (`SECONDARY_RESEED_TIME_INTERVAL` of its
/// `crypto/rand/rand_local.h`); the primary one after an hour. A day is past both.
const CLOCK_BACK_S: u64 = 24 * 60 * 60;

/// The body of `POST /warm`. `time_ms` limits the wall clock of each command without a limit in the language
/// file.
pub fn warm_request(language: &Language, time_ms: u64) -> WarmRequest {
    let warm = language.warm.clone().unwrap_or_default();
    let rehearse = warm.rehearse.then(|| self_test(language, time_ms));
    let runner = warm.runner.map(|runner| Runner {
        argv: language.run.command.clone(),
        env: language.environment(),
        hook_env: runner.env,
        files: runner
            .files
            .into_iter()
            .map(|(path, content)| File {
                path,
                content: content.into(),
                mode: None,
            })
            .collect(),
        cold_env: runner.cold_env,
        timeout_ms: time_ms,
    });
    WarmRequest {
        prepare: warm
            .prepare
            .into_iter()
            .map(|argv| stage(argv, None, time_ms))
            .collect(),
        rehearse: rehearse.into_iter().collect(),
        runner,
        clock_back_s: CLOCK_BACK_S,
    }
}

/// The language's self-test as an execution.
fn self_test(language: &Language, time_ms: u64) -> ExecuteRequest {
    let of = |command: &Command| stage(command.command.clone(), command.wall_time_ms, time_ms);
    let mut run = of(&language.run);
    run.argv.extend(language.self_test.args.iter().cloned());
    ExecuteRequest {
        id: format!("warm-{}", language.name),
        files: vec![File {
            path: language.file.clone(),
            content: language.self_test.code.clone().into(),
            mode: None,
        }],
        compile: language.compile.as_ref().map(of),
        run,
        stdin: language.self_test.stdin.clone().into(),
        env: language.environment(),
        ..ExecuteRequest::default()
    }
}

/// The probe program, which shows the pages that a fork touches: the one that the runner of the language file
/// names, or else the self-test.
pub fn probe(language: &Language, time_ms: u64) -> ExecuteRequest {
    let mut request = self_test(language, time_ms);
    let runner = language.warm.as_ref().and_then(|warm| warm.runner.as_ref());
    if let Some(runner) = runner {
        request.files[0].content = runner.probe.clone().into();
        request.run.argv = language.run.command.clone();
        request.stdin = Vec::new().into();
    }
    request
}

fn stage(argv: Vec<String>, wanted: Option<u64>, time_ms: u64) -> Stage {
    Stage {
        argv,
        wall_time_ms: wanted.unwrap_or(time_ms),
        output_bytes: OUTPUT,
        ..Stage::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use cloude_protocol::language::{Warm, WarmRunner};

    use super::*;
    use crate::languages::Languages;

    fn language(name: &str) -> Language {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../languages");
        let languages = Languages::load(&dir).unwrap();
        Language::clone(languages.find(name).unwrap())
    }

    #[test]
    fn without_a_warm_table_the_self_test_warms_a_template() {
        let mut language = language("python");
        language.warm = None;
        let request = warm_request(&language, 1000);
        assert!(request.prepare.is_empty() && request.runner.is_none());
        let [rehearsal] = &request.rehearse[..] else {
            panic!("one rehearsal");
        };
        assert_eq!(rehearsal.files[0].path, language.file);
        assert!(rehearsal.run.argv.ends_with(&language.self_test.args));
        assert_eq!(rehearsal.identity, None);
    }

    #[test]
    fn the_probe_is_the_runners_program_or_the_self_test() {
        let limits = 1000;
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../languages");
        for of in Languages::load(&dir).unwrap().iter() {
            let program = probe(of, limits);
            let Some(runner) = of.warm.as_ref().and_then(|warm| warm.runner.as_ref()) else {
                assert_eq!(program, self_test(of, limits));
                continue;
            };
            assert_eq!(program.files[0].content.0, runner.probe.as_bytes());
            assert!(program.stdin.0.is_empty());
            assert_eq!(program.run.argv, of.run.command);
        }
    }

    #[test]
    fn the_hooks_environment_is_separate_from_the_runners() {
        let mut language = language("python");
        language.warm = Some(Warm {
            prepare: vec![vec!["ldconfig".into()]],
            rehearse: false,
            runner: Some(WarmRunner {
                env: [("PYTHONPATH".into(), "{dir}".into())].into(),
                cold_env: vec!["PYTHON*".into()],
                files: [("hook.py".into(), "pass\n".into())].into(),
                probe: String::new(),
            }),
        });
        let request = warm_request(&language, 1000);
        assert_eq!(request.prepare[0].argv, ["ldconfig"]);
        assert!(request.rehearse.is_empty());
        let runner = request.runner.unwrap();
        assert_eq!(runner.argv, language.run.command);
        assert!(!runner.env.contains_key("PYTHONPATH"));
        assert_eq!(runner.hook_env["PYTHONPATH"], "{dir}");
        assert_eq!(runner.files[0].path, "hook.py");
    }
}
