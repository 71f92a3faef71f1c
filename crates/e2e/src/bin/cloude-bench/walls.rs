//! The price of the walls around each worker process: two servers, one of them without walls, in turn.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use cloude_e2e::backend::Backend;
use cloude_protocol::api::StartKind;

use crate::hello::{self, Client, HELLOS};
use crate::report::{Report, Row};
use crate::sample::Samples;

/// Pause between two requests, in which the pool refills.
const PAUSE: Duration = Duration::from_millis(300);
/// Samples of each server for each of `Report::runs`.
const A_RUN: usize = 10;

const WITH: &str = "";
const WITHOUT: &str = "isolation.skip = [\"namespaces\", \"uid\", \"root\", \"landlock\", \"seccomp\", \"cgroup\", \"core_scheduling\"]";

/// A server in a thread of its own, because each has a network namespace of its own.
struct Server {
    go: Sender<()>,
    answers: Receiver<Answer>,
    thread: std::thread::JoinHandle<Samples>,
}

/// Milliseconds of an execution, and how its VM was started.
type Answer = (f64, StartKind);

impl Server {
    fn start(isolation: &'static str) -> Self {
        let (go, orders) = channel();
        let (send, answers) = channel();
        let thread = std::thread::spawn(move || serve(isolation, &orders, &send));
        Server {
            go,
            answers,
            thread,
        }
    }

    /// One hello.
    fn hello(&self) -> Answer {
        self.go.send(()).unwrap();
        self.answers.recv().unwrap()
    }

    /// Stops the server, and returns the times of its forks in milliseconds.
    fn stop(self) -> Samples {
        drop(self.go);
        self.thread.join().unwrap()
    }
}

fn serve(isolation: &str, orders: &Receiver<()>, answers: &Sender<Answer>) -> Samples {
    let backend = Backend::start(&format!(
        "vm.max_concurrent = 4\npool.floor = 2\npool.ceiling = 4\npool.disk = \"off\"\n{isolation}"
    ));
    let client = Client::new(&backend);
    let request = hello::request(HELLOS[0].language, HELLOS[0].code);
    hello::warm_up(&client, &request);
    for () in orders {
        let (execution, elapsed) = client.run(&request);
        answers.send((elapsed, execution.start)).unwrap();
    }
    let micros = Samples::of_forks(&backend.log(), "restore_us");
    backend.stop();
    Samples(micros.0.into_iter().map(|us| us / 1e3).collect())
}

pub fn measure(report: &mut Report) {
    let (with, without) = (Server::start(WITH), Server::start(WITHOUT));
    let mut hellos = [Samples::default(), Samples::default()];
    for round in 0..report.runs * A_RUN {
        // Each goes first in every other round.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for server in order {
            std::thread::sleep(PAUSE);
            let (elapsed, start) = [&with, &without][server].hello();
            if start == StartKind::Pool {
                hellos[server].0.push(elapsed);
            }
        }
    }
    let forks = [with.stop(), without.stop()];
    rows(report, "python hello from the pool", &hellos);
    rows(report, "restoring a fork", &forks);
}

fn rows(report: &mut Report, name: &str, [with, without]: &[Samples; 2]) {
    for percent in [50.0, 99.0] {
        let (measured, against) = (with.percentile(percent), without.percentile(percent));
        let row = Row::new(
            format!("{name}, p{percent:.0}: with the walls / without"),
            format!("{measured:.2} ms"),
            measured / against,
        );
        report.push(
            row.against(format!("{against:.2} ms"))
                .samples("with", with)
                .samples("without", without),
        );
    }
}
