//! Sends standard input and the size of the terminal.

use std::io::Read as _;

use cloude_protocol::api::AttachMessage;
use futures_util::{Sink, SinkExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, channel};
use tokio_tungstenite::tungstenite::{self, Bytes, Message};

use crate::raw_mode;
use crate::terminal;

/// Bytes of one read.
const PIECE: usize = 64 << 10;
/// Ctrl-], as in telnet(1) and virsh(1).
const LEAVE: u8 = 0x1d;

/// How the keys of a terminal arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// The terminal is raw: each key, and this process has to tell its size.
    Raw,
    /// As of a pipe or a file; the terminal, if there is one, makes lines.
    Lines,
}

/// Sends until standard input ends or the connection breaks, whose reason the receiving half has.
pub async fn send<S>(mut sink: S, keys: Keys)
where
    S: Sink<Message, Error = tungstenite::Error> + Unpin,
{
    let mut input = standard_input();
    let mut resized = signal(SignalKind::window_change()).ok();
    if keys == Keys::Raw && resize(&mut sink).await.is_err() {
        return;
    }
    loop {
        let piece = tokio::select! {
            piece = input.recv() => piece,
            true = changed(&mut resized), if keys == Keys::Raw => {
                if resize(&mut sink).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let message = match piece {
            Some(piece) if keys == Keys::Raw && piece.contains(&LEAVE) => {
                // The handler of the signal leaves the execution as Ctrl-C does without a terminal.
                raw_mode::restore();
                terminal::stderr(b"\n");
                let _ = rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::INT,
                );
                return;
            }
            Some(piece) => Message::Binary(piece),
            None => {
                let _ = sink.send(text(&AttachMessage::CloseStdin(true))).await;
                return;
            }
        };
        if sink.send(message).await.is_err() {
            return;
        }
    }
}

async fn changed(resized: &mut Option<tokio::signal::unix::Signal>) -> bool {
    match resized {
        Some(resized) => resized.recv().await.is_some(),
        None => std::future::pending().await,
    }
}

async fn resize<S>(sink: &mut S) -> Result<(), tungstenite::Error>
where
    S: Sink<Message, Error = tungstenite::Error> + Unpin,
{
    let size = AttachMessage::Resize(raw_mode::size());
    sink.send(text(&size)).await
}

fn text(message: &AttachMessage) -> Message {
    // A message always serializes.
    Message::text(serde_json::to_string(message).unwrap_or_default())
}

/// The pieces of standard input as they come. In a thread of its own, which read(2) blocks and which ends with the process.
fn standard_input() -> Receiver<Bytes> {
    let (sender, receiver) = channel(1);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; PIECE];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => {
                    let piece = Bytes::copy_from_slice(&buffer[..read]);
                    if sender.blocking_send(piece).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    terminal::note(&format!("cannot read standard input: {error}"));
                    return;
                }
            }
        }
    });
    receiver
}
