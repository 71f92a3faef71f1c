//! Faults under load: killed workers, and a replaced agent or image. No result is wrong or lost, and templates of
//! an old agent or image are no longer used.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

use cloude_e2e::backend::Backend;
use cloude_e2e::{binaries, curl, host};
use serde_json::{Value, json};

/// Default number of executions during which workers are killed; `CLOUDE_FAULTS` overrides it.
const EXECUTIONS: usize = 24;
/// A worker is killed after every third execution.
const EXECUTIONS_A_KILL: usize = 3;
/// Concurrent clients.
const AT_ONCE: usize = 3;

fn wanted() -> usize {
    std::env::var("CLOUDE_FAULTS").map_or(EXECUTIONS, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("CLOUDE_FAULTS is {text:?}: set it to a number"))
    })
}

fn post(backend: &Backend, language: &str, code: &str, start: Option<&str>) -> Value {
    let mut request = json!({
        "language": language,
        "code": code,
        "limits": { "wall_time_ms": 600_000 },
    });
    if let Some(start) = start {
        request["start"] = start.into();
    }
    let answer = curl::post(
        &format!("{}/v1/executions", backend.url()),
        &request.to_string(),
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// A random number below `end`.
fn random_below(end: usize) -> usize {
    let mut bytes = [0; 8];
    let mut device = std::fs::File::open("/dev/urandom").unwrap();
    device.read_exact(&mut bytes).unwrap();
    (u64::from_le_bytes(bytes) % end as u64) as usize
}

/// Kills a random worker: one that runs a program, is paused in the pool, or warms a template.
fn kill_a_worker(backend: &Backend) {
    let worker = host::wait_for("there is a worker", || {
        let workers = host::children_of(backend.id());
        (!workers.is_empty()).then(|| workers[random_below(workers.len())])
    });
    // SAFETY: takes no pointers. The process was a child of the backend a moment ago, and Linux assigns process ids
    // in ascending order up to pid_max before it reuses one.
    unsafe { libc::kill(worker, libc::SIGKILL) };
}

#[derive(Debug, Default)]
struct Ends {
    right: usize,
    /// The worker was killed while the program ran.
    infrastructure: usize,
    wrong: Vec<Value>,
}

impl Ends {
    /// Counts the answer of an execution that prints `output`.
    fn count(&mut self, answer: Value, output: &str) {
        let stdout = answer["stdout"].as_str().unwrap();
        let exited = answer["cause"] == "exit" && answer["exit_code"] == 0;
        let has_error = answer["error"]
            .as_str()
            .is_some_and(|error| !error.is_empty());
        if exited && answer["status"] == "done" && stdout == output {
            self.right += 1;
        } else if answer["cause"] == "infrastructure"
            && answer["status"] == "error"
            && has_error
            && output.starts_with(stdout)
        {
            self.infrastructure += 1;
        } else {
            self.wrong.push(answer);
        }
    }
}

#[test]
fn a_killed_worker_never_causes_a_wrong_or_lost_result() {
    let backend = Backend::start("");
    let executions = wanted();
    let (next, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (ends, ids) = (Mutex::new(Ends::default()), Mutex::new(Vec::new()));
    let mut kills = 0;
    // The template exists after this execution, so that workers of the pool can be killed.
    let first = post(&backend, "python", "print(1)", Some("fork"));
    assert_eq!(first["stdout"], "1\n", "{first}");
    std::thread::scope(|scope| {
        let client = || {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= executions {
                        return;
                    }
                    let code = format!(
                        "import time\nprint({number} ** 2)\ntime.sleep(0.1)\nprint('end of {number}')"
                    );
                    let answer = post(&backend, "python", &code, None);
                    ids.lock().unwrap().push(answer["id"].clone());
                    let output = format!("{}\nend of {number}\n", number * number);
                    ends.lock().unwrap().count(answer, &output);
                    ended.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let clients: Vec<_> = (0..AT_ONCE).map(|_| client()).collect();
        while (kills + 1) * EXECUTIONS_A_KILL < executions {
            host::wait_for("executions end", || {
                let all_ended = clients.iter().all(ScopedJoinHandle::is_finished);
                let enough = ended.load(Ordering::Relaxed) >= kills * EXECUTIONS_A_KILL;
                assert!(enough || !all_ended, "the clients have ended");
                enough.then_some(())
            });
            kill_a_worker(&backend);
            kills += 1;
        }
    });
    let ends = ends.into_inner().unwrap();
    println!(
        "{executions} executions, {kills} workers killed: {} right, {} with cause infrastructure, {} wrong",
        ends.right,
        ends.infrastructure,
        ends.wrong.len()
    );
    assert!(ends.wrong.is_empty(), "{:#?}", ends.wrong);
    assert_eq!(ends.right + ends.infrastructure, executions);
    assert!(ends.infrastructure <= kills, "{ends:?}");
    for id in ids.into_inner().unwrap() {
        let url = format!("{}/v1/executions/{}", backend.url(), id.as_str().unwrap());
        let known = curl::get(&url).expect("the backend answers");
        assert_eq!(known.status, 200, "{id} is lost: {known:?}");
    }
    backend.stop();
}

/// The builds of the agent and of the image that a program printed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Builds {
    agent: String,
    image: String,
}

/// Prints the mark of the agent's build, then the mark of the image's. The agent mounts an empty tmpfs over
/// /.cloude, and the builds of this test differ in its `size=` option.
const PRINT_BUILDS: &str = r#"
while read -r _ _ _ _ point rest; do
    [ "$point" = /.cloude ] && options=${rest##* }
done < /proc/self/mountinfo
for option in ${options//,/ }; do
    case $option in size=*) echo "$option" ;; esac
done
echo "$(< /image-build)"
"#;
/// The language with the smallest image, because every replacement boots a new template.
const LANGUAGE: &str = "bash";
const AGENT_OPTIONS: &[u8] = b"size=4k,nr_inodes=1,mode=000";
const FIRST: (&str, &str) = ("size=4k", "image 1");
const SECOND: (&str, &str) = ("size=8k", "image 2");

/// A folder with a backend's agent and its only image, both replaceable.
struct Parts {
    folder: tempfile::TempDir,
}

impl Parts {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let parts = Parts { folder };
        std::fs::create_dir(parts.images()).unwrap();
        parts.put_agent(FIRST.0);
        parts.put_image(FIRST.1);
        parts
    }

    fn agent(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    fn images(&self) -> PathBuf {
        self.folder.path().join("images")
    }

    /// Installs an agent that mounts the tmpfs over /.cloude with another size.
    fn put_agent(&self, size: &str) {
        let mut agent = std::fs::read(binaries::agent()).unwrap();
        let places: Vec<usize> = agent
            .windows(AGENT_OPTIONS.len())
            .enumerate()
            .filter_map(|(at, bytes)| (bytes == AGENT_OPTIONS).then_some(at))
            .collect();
        assert_eq!(
            places.len(),
            1,
            "the agent binary contains AGENT_OPTIONS once"
        );
        agent[places[0]..places[0] + size.len()].copy_from_slice(size.as_bytes());
        replace(&self.agent(), &agent);
    }

    /// Installs the language's image with an additional file, `/image-build`.
    fn put_image(&self, build: &str) {
        let name = LANGUAGE;
        let mut image = std::fs::read(binaries::image(name)).unwrap();
        image.extend(cpio("image-build", build.as_bytes()));
        let known = binaries::images().join(format!("{name}.json"));
        let mut known: Value = serde_json::from_slice(&std::fs::read(known).unwrap()).unwrap();
        known["summary"]["archive_bytes"] = image.len().into();
        replace(&self.images().join(format!("{name}.cpio")), &image);
        let known = serde_json::to_vec(&known).unwrap();
        replace(&self.images().join(format!("{name}.json")), &known);
    }
}

/// Replaces a file with rename(2), as a package manager does.
fn replace(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new).unwrap();
    file.write_all(content).unwrap();
    drop(file);
    std::fs::rename(&new, path).unwrap();
}

/// A cpio archive with one file, in the newc format (Documentation/driver-api/early-userspace/buffer-format.rst).
fn cpio(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, mode, content) in [(name, 0o100_644, content), ("TRAILER!!!", 0, &[][..])] {
        let fields = [
            0,
            mode,
            0,
            0,
            1,
            0,
            content.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0,
        ];
        archive.extend(b"070701");
        for field in fields {
            archive.extend(format!("{field:08x}").bytes());
        }
        archive.extend(name.bytes());
        archive.push(0);
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(content);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

/// Repeated executions, and the builds that each of them printed.
struct Load<'a> {
    backend: &'a Backend,
    end: AtomicBool,
    /// Number of replacements so far.
    switches: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
}

/// An execution that was requested after `switches` replacements.
#[derive(Debug)]
struct Seen {
    switches: usize,
    forked: bool,
    builds: Result<Builds, Value>,
}

impl Load<'_> {
    fn run_until_end(&self) {
        while !self.end.load(Ordering::Relaxed) {
            let switches = self.switches.load(Ordering::SeqCst);
            let answer = post(self.backend, LANGUAGE, PRINT_BUILDS, None);
            let builds = match answer["stdout"].as_str().unwrap().trim().split_once('\n') {
                Some((agent, image)) if answer["exit_code"] == 0 => Ok(Builds {
                    agent: agent.to_owned(),
                    image: image.to_owned(),
                }),
                _ => Err(answer.clone()),
            };
            self.seen.lock().unwrap().push(Seen {
                switches,
                forked: answer["start"] != "cold",
                builds,
            });
        }
    }

    /// Waits until five executions that were requested after the last replacement ran in forks.
    fn wait_for_forks(&self, clients: &[ScopedJoinHandle<'_, ()>]) {
        let switches = self.switches.load(Ordering::SeqCst);
        host::wait_for("executions are forked", || {
            assert!(
                !clients.iter().any(ScopedJoinHandle::is_finished),
                "a client ended early"
            );
            let seen = self.seen.lock().unwrap();
            let forked = seen
                .iter()
                .filter(|seen| seen.switches == switches && seen.forked);
            (forked.count() >= 5).then_some(())
        });
    }

    /// Replaces a file. Every execution that is requested afterwards must use it.
    fn switch(&self, replace: impl FnOnce()) {
        replace();
        self.switches.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn later_executions_use_a_replaced_agent_or_image() {
    let parts = Parts::new();
    let path = |path: PathBuf| toml::Value::String(path.to_str().unwrap().to_owned());
    let backend = Backend::start(&format!(
        "agent.binary = {}\nimages.dir = {}",
        path(parts.agent()),
        path(parts.images())
    ));
    let load = Load {
        backend: &backend,
        end: AtomicBool::new(false),
        switches: AtomicUsize::new(0),
        seen: Mutex::default(),
    };
    std::thread::scope(|scope| {
        let clients = [(); 2].map(|()| scope.spawn(|| load.run_until_end()));
        // Catch a panic to stop the clients: the scope waits for them.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            load.wait_for_forks(&clients);
            load.switch(|| parts.put_agent(SECOND.0));
            load.wait_for_forks(&clients);
            load.switch(|| parts.put_image(SECOND.1));
            load.wait_for_forks(&clients);
        }));
        load.end.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    let seen = load.seen.into_inner().unwrap();
    // Lower bounds: an execution that was requested just before a replacement may use either build.
    let least = [
        (FIRST.0, FIRST.1),
        (SECOND.0, FIRST.1),
        (SECOND.0, SECOND.1),
    ];
    for (switches, (agent, image)) in least.into_iter().enumerate() {
        let these: Vec<&Seen> = seen.iter().filter(|it| it.switches == switches).collect();
        let forked = these.iter().filter(|it| it.forked).count();
        println!(
            "{switches} switches: {} executions, {forked} of them forks",
            these.len()
        );
        for one in these {
            let builds = one
                .builds
                .as_ref()
                .unwrap_or_else(|answer| panic!("failed: {answer}"));
            assert!(
                builds.agent.as_str() >= agent && builds.image.as_str() >= image,
                "an old agent or image was used after {switches} replacements: {one:?}"
            );
        }
    }
    assert!(
        seen.iter()
            .any(|it| it.builds.as_ref().is_ok_and(|it| it.agent == FIRST.0))
    );
    backend.stop();
}
