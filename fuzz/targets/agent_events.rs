//! The host's client of the agent: answers of a guest that runs untrusted code. Half of the inputs are whole HTTP
//! responses, the others the events of a well-formed one.
#![no_main]

use std::io;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use cloude_engine::guest::{execute, warm};
use cloude_fuzz::{Input, bounded};
use cloude_protocol::agent::{Event, ExecuteRequest, Identity, Stage, WarmRequest};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Runtime;

/// Bytes of each stream that the request allows.
const OUTPUT: u64 = 1000;
/// What the client lets a stream exceed it by (`OUTPUT_SLACK`).
const SLACK: u64 = 256 << 10;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
});

/// A guest that waits for the request and then sends its answer, some bytes at a time.
struct Guest {
    answer: Vec<u8>,
    sent: usize,
    step: usize,
    asked: bool,
    reader: Option<Waker>,
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        buffer: &mut ReadBuf,
    ) -> Poll<io::Result<()>> {
        if !self.asked {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let end = self
            .answer
            .len()
            .min(self.sent + self.step.min(buffer.remaining()));
        buffer.put_slice(&self.answer[self.sent..end]);
        self.sent = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.asked = true;
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn request(is_fork: bool) -> ExecuteRequest {
    let identity = Identity {
        entropy: String::new(),
        wall_clock_ns: 0,
        hostname: String::new(),
        machine_id: String::new(),
        boot_id: String::new(),
        token: String::new(),
        network: None,
    };
    ExecuteRequest {
        id: String::new(),
        run: Stage {
            argv: vec!["a".into()],
            wall_time_ms: 1,
            output_bytes: OUTPUT,
            ..Stage::default()
        },
        identity: is_fork.then_some(identity),
        ..ExecuteRequest::default()
    }
}

fn guest(answer: &[u8], step: usize) -> Box<Guest> {
    Box::new(Guest {
        answer: answer.to_vec(),
        sent: 0,
        step,
        asked: false,
        reader: None,
    })
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let (flags, step) = (input.u8(), 1 + usize::from(input.u16()));
    let is_fork = flags & 1 == 0;
    let answer = match flags & 2 {
        0 => [
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
            input.rest(),
        ]
        .concat(),
        _ => input.rest().to_vec(),
    };
    // hyper's buffers, a line of the longest event, and the output that the limit allows.
    bounded(8 << 20, || {
        let mut events = Vec::new();
        let request = request(is_fork);
        let done = execute(guest(&answer, step), "token", &request, |event| {
            events.push(event)
        });
        let done = RUNTIME.block_on(done).is_ok();
        let output: u64 = events
            .iter()
            .map(|event| match event {
                Event::Output { data, .. } => data.0.len() as u64,
                _ => 0,
            })
            .sum();
        // Two streams of two stages.
        assert!(output <= 4 * (OUTPUT + SLACK), "{output} bytes of output");
        if is_fork {
            let first = events.first();
            assert!(
                first.is_none_or(|event| *event == Event::Identity),
                "{first:?} came before the identity"
            );
        }
        let last = events.last();
        assert_eq!(
            done,
            last.is_some_and(|event| matches!(event, Event::Finished(_))),
            "{last:?}"
        );
    });
    if flags & 4 != 0 {
        let request = WarmRequest::default();
        bounded(8 << 20, || {
            RUNTIME.block_on(async {
                let _ = warm(guest(&answer, step), "token", &request).await;
            })
        });
    }
});
