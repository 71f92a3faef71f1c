//! What a template of a language is told to do before it is saved.

use std::collections::BTreeMap;

use cloude_protocol::agent::{ExecuteRequest, File, Runner, Stage, WarmRequest};
use cloude_protocol::language::{Command, Language};

use crate::config::Limits;

/// What is kept of the output of what runs only to warm, in bytes: enough to see why it failed.
const OUTPUT: u64 = 64 << 10;
/// How far a template's clock is set back, in seconds. OpenSSL's generators reseed themselves seven
/// minutes after they last did by the wall clock (`SECONDARY_RESEED_TIME_INTERVAL` of its
/// `crypto/rand/rand_local.h`); the primary one after an hour. A day is past both.
const CLOCK_BACK_S: u64 = 24 * 60 * 60;

/// The request for `POST /warm` of a language.
pub fn warm_request(language: &Language, limits: &Limits) -> WarmRequest {
    let warm = language.warm.clone().unwrap_or_default();
    let rehearse = warm.rehearse.then(|| rehearsal(language, limits));
    let runner = warm.runner.map(|runner| Runner {
        argv: language.run.command.clone(),
        env: environment(language),
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
        timeout_ms: limits.compile_time_ms,
    });
    WarmRequest {
        prepare: warm
            .prepare
            .into_iter()
            .map(|argv| stage(argv, None, limits))
            .collect(),
        rehearse: rehearse.into_iter().collect(),
        runner,
        clock_back_s: CLOCK_BACK_S,
    }
}

/// The language's own test, as an execution.
pub fn rehearsal(language: &Language, limits: &Limits) -> ExecuteRequest {
    let of = |command: &Command| stage(command.command.clone(), command.wall_time_ms, limits);
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
        env: environment(language),
        working_dir: None,
        identity: None,
    }
}

/// The program that shows which pages a fork touches: the one that the language's runner names, else the
/// language's own test.
pub fn probe(language: &Language, limits: &Limits) -> ExecuteRequest {
    let mut request = rehearsal(language, limits);
    let runner = language.warm.as_ref().and_then(|warm| warm.runner.as_ref());
    if let Some(runner) = runner {
        request.files[0].content = runner.probe.clone().into();
        request.run.argv = language.run.command.clone();
        request.stdin = Vec::new().into();
    }
    request
}

fn stage(argv: Vec<String>, wanted: Option<u64>, limits: &Limits) -> Stage {
    Stage {
        argv,
        wall_time_ms: wanted.unwrap_or(limits.compile_time_ms),
        output_bytes: OUTPUT,
    }
}

/// As an execution of the language has it, but for the request's own.
fn environment(language: &Language) -> BTreeMap<String, String> {
    let compile = language.compile.iter().flat_map(|command| &command.env);
    compile
        .chain(&language.run.env)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
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
    fn a_language_that_does_not_say_is_warmed_by_its_self_test() {
        let mut language = language("python");
        language.warm = None;
        let request = warm_request(&language, &Limits::default());
        assert!(request.prepare.is_empty() && request.runner.is_none());
        let [rehearsal] = &request.rehearse[..] else {
            panic!("one rehearsal");
        };
        assert_eq!(rehearsal.files[0].path, language.file);
        assert!(rehearsal.run.argv.ends_with(&language.self_test.args));
        assert_eq!(rehearsal.identity, None);
    }

    #[test]
    fn a_runner_names_its_probe_and_a_compiler_probes_with_its_test() {
        let limits = Limits::default();
        for name in ["node", "python"] {
            let of = language(name);
            let program = probe(&of, &limits);
            let runner = of.warm.and_then(|warm| warm.runner).unwrap();
            assert_eq!(program.files[0].content.0, runner.probe.as_bytes());
            assert!(program.stdin.0.is_empty());
            assert_eq!(program.run.argv, of.run.command);
        }
        let rust = language("rust");
        assert_eq!(probe(&rust, &limits), rehearsal(&rust, &limits));
    }

    #[test]
    fn a_runner_is_the_run_command_with_its_hook_apart() {
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
        let request = warm_request(&language, &Limits::default());
        assert_eq!(request.prepare[0].argv, ["ldconfig"]);
        assert!(request.rehearse.is_empty());
        let runner = request.runner.unwrap();
        assert_eq!(runner.argv, language.run.command);
        assert!(!runner.env.contains_key("PYTHONPATH"));
        assert_eq!(runner.hook_env["PYTHONPATH"], "{dir}");
        assert_eq!(runner.files[0].path, "hook.py");
    }
}
