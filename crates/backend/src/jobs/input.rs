//! The way of clients' input to an interactive program.

use std::sync::Arc;
use std::time::Duration;

use cloude_engine::guest::{InputError, InputSender};
use cloude_protocol::Data;
use cloude_protocol::agent::{Input, Interactive, TerminalSize};
use tokio::sync::{Mutex, watch};

/// Maximum time from a broken connection to the agent until the end of the execution, which explains it.
const END_WAIT: Duration = Duration::from_secs(5);

/// Something for a program that is not a part of its standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Its terminal has a new size.
    Resize(TerminalSize),
    /// A signal, 1 to 64.
    Signal(i32),
}

/// The way to the standard input of one interactive program, for any number of clients.
///
/// All clients share two connections to the agent, which accepts a limited number. What comes after the program's end, or
/// after the end of its standard input, is dropped.
#[derive(Debug)]
pub struct InputPort {
    interactive: Interactive,
    state: watch::Sender<State>,
}

#[derive(Clone)]
enum State {
    /// The run stage is not started.
    Waiting,
    Open(Arc<Senders>),
    Ended,
}

/// Without the agent's token.
impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Waiting => "Waiting",
            State::Open(_) => "Open",
            State::Ended => "Ended",
        })
    }
}

struct Senders {
    data: Mutex<InputSender>,
    /// Not behind data for which the program has no room.
    control: Mutex<InputSender>,
}

impl InputPort {
    pub(super) fn new(interactive: Interactive) -> Self {
        InputPort {
            interactive,
            state: watch::Sender::new(State::Waiting),
        }
    }

    /// The run stage is started.
    pub(super) fn open(&self, sender: InputSender) {
        let control = Mutex::new(sender.clone());
        let data = Mutex::new(sender);
        self.state
            .send_replace(State::Open(Arc::new(Senders { data, control })));
    }

    /// The execution has ended.
    pub(super) fn end(&self) {
        self.state.send_replace(State::Ended);
    }

    /// The field of the request.
    pub fn interactive(&self) -> Interactive {
        self.interactive
    }

    /// Sends bytes, and then the end of standard input if `end`. Waits for the start of the program and until it has room
    /// for all bytes. Bytes of two calls do not mix. If the future is dropped, the rest is not sent.
    pub async fn send(&self, bytes: Vec<u8>, end: bool) -> Result<(), InputError> {
        let Some(senders) = self.senders().await else {
            return Ok(());
        };
        let input = Input {
            data: (!bytes.is_empty()).then_some(Data(bytes)),
            end,
            ..Input::default()
        };
        self.apply(&senders.data, &input).await
    }

    /// Sends a signal or a size. Waits for the start of the program, but not for bytes that were sent before.
    pub async fn control(&self, control: Control) -> Result<(), InputError> {
        let Some(senders) = self.senders().await else {
            return Ok(());
        };
        let input = match control {
            Control::Resize(size) => Input {
                resize: Some(size),
                ..Input::default()
            },
            Control::Signal(signal) => Input {
                signal: Some(signal),
                ..Input::default()
            },
        };
        self.apply(&senders.control, &input).await
    }

    /// Waits for the start of the program; `None` if it has ended.
    async fn senders(&self) -> Option<Arc<Senders>> {
        let mut state = self.state.subscribe();
        let started = state.wait_for(|state| !matches!(state, State::Waiting));
        match &*started.await.ok()? {
            State::Open(senders) => Some(Arc::clone(senders)),
            State::Waiting | State::Ended => None,
        }
    }

    async fn apply(&self, sender: &Mutex<InputSender>, input: &Input) -> Result<(), InputError> {
        let sent = sender.lock().await.send(input).await;
        match sent {
            Ok(()) | Err(InputError::Closed(_)) => Ok(()),
            Err(error) => {
                // The usual reason is that the VM has ended.
                let mut state = self.state.subscribe();
                let ended = state.wait_for(|state| matches!(state, State::Ended));
                match tokio::time::timeout(END_WAIT, ended).await {
                    Ok(_) => Ok(()),
                    Err(_) => Err(error),
                }
            }
        }
    }
}
