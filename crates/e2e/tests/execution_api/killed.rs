//! Executions of a server that is killed: each one that it accepted is accounted for by the next server.
//! `CLOUDE_DURABLE` sets their number.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use cloude_e2e::backend::Backend;
use cloude_e2e::{curl, host};
use serde_json::{Value, json};

use crate::requests::{executions, result, start};

/// Executions, a quarter of them of each kind.
const DURABLE: usize = 16;
/// Lines of the program whose output is followed.
const LINES: usize = 1500;

fn durable() -> usize {
    std::env::var("CLOUDE_DURABLE").map_or(DURABLE, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("CLOUDE_DURABLE is {text:?}: set it to a number"))
    })
}

/// A client's server for callbacks: the numbers of the deliveries of each execution.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<BTreeMap<String, Vec<u32>>>>);

impl Receiver {
    /// Answers every callback with 200 until the test ends. Returns the URL, too.
    fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/done", listener.local_addr().unwrap());
        let receiver = Receiver::default();
        let received = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A killed server closes its connections in the middle.
                let _ = received.answer(stream.unwrap());
            }
        });
        (receiver, url)
    }

    fn answer(&self, stream: std::net::TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(&stream);
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.trim().split_once(": ") {
                Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
                None if line.trim().is_empty() => break,
                None => None,
            };
        }
        let length = headers["content-length"].parse().unwrap();
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let execution: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(execution["id"], headers["cloude-execution"].as_str());
        let delivery = headers["cloude-delivery"].parse().unwrap();
        let mut all = self.0.lock().unwrap();
        let id = headers["cloude-execution"].clone();
        all.entry(id).or_default().push(delivery);
        drop(all);
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        (&stream).write_all(answer.as_bytes())
    }

    fn has(&self, id: &str) -> bool {
        self.0.lock().unwrap().contains_key(id)
    }
}

fn bash(number: usize) -> Value {
    json!({ "language": "bash", "code": "echo $1; cat", "args": [number.to_string()], "stdin": "in" })
}

fn output(number: usize) -> String {
    format!("{number}\nin")
}

/// A client that waits for an execution with an idempotency key. It fails when the server is killed.
fn wait_with_key(backend: &Backend, number: usize) -> Child {
    let body = bash(number).to_string();
    let client = Command::new("curl")
        .args(["--silent", "--noproxy", "*", "--fail"])
        .args(["--header", "content-type: application/json"])
        .args(["--header", &format!("idempotency-key: {number}")])
        .args(["--data-binary", &body, &executions(backend)])
        .stdout(Stdio::null())
        .spawn();
    client.unwrap()
}

/// The same request again.
fn again_with_key(backend: &Backend, number: usize) -> Value {
    let body = bash(number).to_string();
    host::wait_for("the request with a key is answered", || {
        let answer = curl::curl(&[
            "--header",
            "content-type: application/json",
            "--header",
            &format!("idempotency-key: {number}"),
            "--data-binary",
            &body,
            &executions(backend),
        ])?;
        (answer.status == 200).then_some(answer.body)
    })
}

/// A client that writes an execution's server-sent events to `file`.
fn follow(backend: &Backend, id: &str, after: Option<&str>, file: &Path) -> Child {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--no-buffer", "--noproxy", "*"]);
    if let Some(after) = after {
        curl.args(["--header", &format!("last-event-id: {after}")]);
    }
    curl.arg(format!("{}/{id}/events", executions(backend)))
        .stdout(std::fs::File::create(file).unwrap())
        .spawn()
        .unwrap()
}

/// The output in a file of server-sent events since the last `restarted`, and what ends the file.
#[derive(Debug, Default)]
struct Seen {
    restarts: usize,
    output: String,
    has_result: bool,
    last_id: Option<String>,
}

impl Seen {
    fn read(mut self, file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        // The text after the last empty line may be a part of an event.
        let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
        for event in whole.split("\n\n") {
            self.take(event);
        }
        self
    }

    fn take(&mut self, event: &str) {
        let field = |name: &str| {
            let line = event.lines().find(|line| line.starts_with(name))?;
            Some(line[name.len()..].trim().to_owned())
        };
        let Some(name) = field("event:") else {
            return;
        };
        let data: Value = serde_json::from_str(&field("data:").unwrap()).unwrap();
        match name.as_str() {
            "restarted" => {
                self.restarts += 1;
                self.output.clear();
            }
            "output" => self.output += data["data"].as_str().unwrap(),
            "result" => self.has_result = true,
            _ => {}
        }
        self.last_id = field("id:").or(self.last_id.take());
    }
}

#[test]
fn accepted_executions_survive_a_killed_server() {
    let quarter = durable() / 4;
    let mut backend = Backend::start(&format!(
        "vm.max_concurrent = 4\nqueue.capacity = {}\ncallbacks.secret = \"key\"\ncallbacks.allow = [\"127.0.0.0/8\"]",
        durable() + 16
    ));
    // After the server, which makes the network namespace of this test.
    let (receiver, url) = Receiver::start();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| -> PathBuf { folder.path().join(name) };

    // A program that prints until the server is killed, with a reader.
    let code = format!(
        "import time\nfor i in range({LINES}):\n    print('line', i, flush=True)\n    time.sleep(0.01)"
    );
    let limits = json!({"wall_time_ms": 600_000});
    let followed = start(
        &backend,
        &json!({ "language": "python", "code": code, "limits": limits }),
    );
    let mut reader = follow(&backend, &followed, None, &file("before"));
    // The other kinds: with a callback, with a key and a client that waits, and in a batch.
    let called_back: Vec<String> = (0..quarter)
        .map(|number| {
            let mut request = bash(number);
            request["callback_url"] = url.as_str().into();
            start(&backend, &request)
        })
        .collect();
    let mut waiting: Vec<Child> = (0..quarter)
        .map(|number| wait_with_key(&backend, number))
        .collect();
    let inputs: Vec<Value> = (0..2 * quarter)
        .map(|number| json!({"args": [number.to_string()]}))
        .collect();
    let batch = json!({"request": bash(0), "inputs": inputs});
    let answer = curl::post(&format!("{}/v1/batches", backend.url()), &batch.to_string());
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    let batch = format!(
        "{}/v1/batches/{}",
        backend.url(),
        answer.body["id"].as_str().unwrap()
    );

    // Some have ended, some run, some wait.
    host::wait_for("the first callback and lines", || {
        let lines = Seen::default().read(&file("before")).output;
        (receiver.has(&called_back[0]) && lines.lines().count() > 10).then_some(())
    });
    backend.kill();
    reader.wait().unwrap();
    for client in &mut waiting {
        client.wait().unwrap();
    }
    backend.restart();

    for (number, id) in called_back.iter().enumerate() {
        let execution = result(&backend, id);
        assert_eq!(execution["stdout"], output(number), "{execution}");
        host::wait_for("a callback", || receiver.has(id).then_some(()));
    }
    // A client that was cut off asks again, and gets the same execution.
    for number in 0..quarter {
        let first = again_with_key(&backend, number);
        assert_eq!(first["stdout"], output(number), "{first}");
        assert_eq!(again_with_key(&backend, number)["id"], first["id"]);
    }
    let ended = host::wait_for("the batch ends", || {
        let body = curl::get(&batch)?.body;
        (body["ended"] == true).then_some(body)
    });
    for (number, execution) in ended["executions"].as_array().unwrap().iter().enumerate() {
        let execution = result(&backend, execution["id"].as_str().unwrap());
        assert_eq!(execution["stdout"], output(number), "{execution}");
    }
    // The reader goes on after its last event. The program may have begun anew; no byte is missing or twice.
    let before = Seen::default().read(&file("before"));
    let last = before.last_id.clone();
    let mut reader = follow(&backend, &followed, last.as_deref(), &file("after"));
    reader.wait().unwrap();
    let after = before.read(&file("after"));
    let lines: String = (0..LINES).map(|line| format!("line {line}\n")).collect();
    assert!(after.has_result, "{after:?}");
    assert_eq!(after.output, lines);
    // None if the program ended before the server was killed.
    assert!(after.restarts <= 1, "{} restarts", after.restarts);

    // Deliveries of one execution are numbered.
    for (id, deliveries) in receiver.0.lock().unwrap().iter() {
        assert!(deliveries.is_sorted(), "{id}: {deliveries:?}");
    }
    backend.stop();
}
