//! A running interactive execution.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use cloude_protocol::agent::{
    Event, ExecuteRequest, File, Input, Interactive, StageName, StageResult, Stream, TerminalSize,
};

use super::{Agent, Answer, TOKEN, agent, execute_bytes, read_answer, request, streamed};

/// A running execution, and what it has sent so far.
pub struct Session {
    pub agent: Agent,
    stream: UnixStream,
    bytes: Vec<u8>,
}

pub fn pipes(mut request: ExecuteRequest) -> Session {
    request.interactive = Some(Interactive::default());
    session(request)
}

pub fn terminal(mut request: ExecuteRequest) -> Session {
    let terminal = Some(TerminalSize {
        columns: 101,
        rows: 37,
    });
    request.interactive = Some(Interactive { terminal });
    session(request)
}

pub fn session(request: ExecuteRequest) -> Session {
    let agent = agent();
    let mut stream = agent.connect();
    let body = serde_json::to_vec(&request).unwrap();
    stream.write_all(&execute_bytes(&body)).unwrap();
    let mut session = Session {
        agent,
        stream,
        bytes: Vec::new(),
    };
    while !session.events().iter().any(|event| {
        matches!(
            event,
            Event::Started {
                stage: StageName::Run
            }
        )
    }) {
        session.read();
    }
    session
}

pub fn python(code: &str) -> ExecuteRequest {
    let mut request = request(&["/usr/bin/python3", "-I", "-u", "main.py"]);
    request.files.push(File {
        path: "main.py".into(),
        content: code.into(),
        mode: None,
    });
    request
}

pub fn data(text: &str) -> Input {
    Input {
        data: Some(text.into()),
        ..Input::default()
    }
}

pub fn end() -> Input {
    Input {
        end: true,
        ..Input::default()
    }
}

pub fn signal(signal: i32) -> Input {
    Input {
        signal: Some(signal),
        ..Input::default()
    }
}

pub fn post_input(stream: &mut UnixStream, input: &Input) -> Answer {
    let body = serde_json::to_vec(input).unwrap();
    let head = format!(
        "POST /input HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(&[head.as_bytes(), &body].concat())
        .unwrap();
    read_answer(stream)
}

impl Session {
    pub fn read(&mut self) {
        let mut buffer = [0; 65536];
        let length = self.stream.read(&mut buffer).unwrap();
        assert!(
            length > 0,
            "ended: {}",
            String::from_utf8_lossy(&self.bytes)
        );
        self.bytes.extend_from_slice(&buffer[..length]);
    }

    /// The events that are complete.
    pub fn events(&self) -> Vec<Event> {
        let lines = self.bytes.split_inclusive(|byte| *byte == b'\n');
        lines
            .filter(|line| line.starts_with(b"{\"event\"") && line.ends_with(b"\n"))
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    pub fn output(&self) -> String {
        let output = streamed(&self.events(), StageName::Run, Stream::Stdout);
        String::from_utf8(output).unwrap()
    }

    pub fn wait_for(&mut self, text: &str) {
        while !self.output().contains(text) {
            self.read();
        }
    }

    pub fn send(&self, input: &Input) -> Answer {
        post_input(&mut self.agent.connect(), input)
    }

    pub fn sent(&self, input: &Input) {
        let answer = self.send(input);
        assert_eq!(
            answer.status,
            204,
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
    }

    pub fn finish(&mut self) -> StageResult {
        loop {
            if let Some(Event::Finished(result)) = self.events().pop() {
                return result.run.unwrap();
            }
            self.read();
        }
    }
}
