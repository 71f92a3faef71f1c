//! Clients that send what no good client sends, or do not read.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use cloude_e2e::host;

use crate::case::{Case, case, shared, still_serves};

fn address() -> SocketAddr {
    shared().url()["http://".len()..].parse().unwrap()
}

fn connect() -> TcpStream {
    let stream = TcpStream::connect(address()).unwrap();
    stream.set_read_timeout(Some(host::patience())).unwrap();
    stream.set_write_timeout(Some(host::patience())).unwrap();
    stream
}

/// Sends bytes and returns the status of the answer; 0 if the server closed the connection without one.
fn send(bytes: &[u8]) -> u16 {
    let mut stream = connect();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(bytes);
    status_of(&mut stream)
}

fn status_of(stream: &mut TcpStream) -> u16 {
    let mut answer = [0; 12];
    match stream.read_exact(&mut answer) {
        Ok(()) => {
            let text = String::from_utf8_lossy(&answer);
            text.rsplit(' ').next().unwrap().parse().unwrap()
        }
        Err(_) => 0,
    }
}

/// A request with a JSON body.
fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let host = address();
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

/// A case that sends `request` and gets one of `statuses`.
fn answer(
    name: &str,
    naive: &str,
    statuses: &'static [u16],
    request: impl Fn() -> Vec<u8> + Send + Sync + 'static,
) -> Case {
    case(&format!("client::{name}"), naive, move || {
        let status = send(&request());
        assert!(statuses.contains(&status), "the answer is {status}");
        still_serves(&shared());
    })
}

/// A case that sends a body to `/v1/executions` and gets 400.
fn refused(name: &str, naive: &str, body: impl Fn() -> String + Send + Sync + 'static) -> Case {
    answer(name, naive, &[400], move || {
        post("/v1/executions", "", &body())
    })
}

pub fn cases() -> Vec<Case> {
    let bash = |fields: &str| format!(r#"{{"language":"bash","code":"true",{fields}}}"#);
    let mut cases = vec![
        answer(
            "dns_rebinding",
            "a web page whose name resolves to 127.0.0.1 runs programs and reads their output",
            &[421],
            || {
                let request = post("/v1/executions", "", r#"{"language":"bash","code":"id"}"#);
                let text = String::from_utf8(request).unwrap();
                let host = format!("Host: {}", address());
                text.replace(&host, "Host: evil.example").into_bytes()
            },
        ),
        answer(
            "request_of_a_foreign_web_page",
            "a web page runs programs with its visitor's access",
            &[403],
            || {
                let body = r#"{"language":"bash","code":"id"}"#;
                post("/v1/executions", "Origin: https://evil.example\r\n", body)
            },
        ),
        answer(
            "form_of_a_web_page",
            "a form of a web page runs a program: browsers send forms to any site",
            &[415],
            || {
                let body = r#"{"language":"bash","code":"id"}"#;
                let request = String::from_utf8(post("/v1/executions", "", body)).unwrap();
                request
                    .replace("application/json", "text/plain")
                    .into_bytes()
            },
        ),
        answer(
            "json_ten_thousand_deep",
            "the parser's stack overflows and ends the server",
            &[400],
            || post("/v1/executions", "", &"[".repeat(10_000)),
        ),
        answer(
            "body_of_ten_gigabytes",
            "the server reserves the length that the client names",
            &[413],
            || {
                let mut request = post("/v1/executions", "", "");
                let text = String::from_utf8(std::mem::take(&mut request)).unwrap();
                text.replace("Content-Length: 0", "Content-Length: 10737418240")
                    .into_bytes()
            },
        ),
        answer(
            "chunked_body_without_end",
            "a body without a length is read until memory is full",
            &[413, 0],
            || {
                let host = address();
                let mut request = format!(
                    "POST /v1/executions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
                     Transfer-Encoding: chunked\r\n\r\n"
                )
                .into_bytes();
                let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
                for _ in 0..48 {
                    request.extend_from_slice(&chunk);
                }
                request
            },
        ),
        answer(
            "two_lengths",
            "server and proxy disagree where a request ends, and one client answers for another",
            &[400, 0],
            || {
                let host = address();
                format!(
                    "POST /v1/executions HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nContent-Length: 40\r\n\r\nGET "
                )
                .into_bytes()
            },
        ),
        answer(
            "megabyte_of_headers",
            "headers are kept without a limit",
            &[400, 431, 0],
            || {
                let header = format!("X-Long: {}\r\n", "x".repeat(1000)).repeat(1000);
                post("/v1/executions", &header, "{}")
            },
        ),
        answer(
            "bytes_that_are_no_http",
            "the parser panics",
            &[400, 0],
            || (0..=255).cycle().take(100_000).collect(),
        ),
        answer(
            "path_that_climbs",
            "a path with `../` reads files of the server",
            &[400, 404],
            || {
                let host = address();
                format!("GET /status/..%2f..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
                    .into_bytes()
            },
        ),
        answer(
            "id_of_nobody",
            "ids can be guessed, and tell whether an execution exists",
            &[404],
            || {
                let host = address();
                let id = "00000000-0000-4000-8000-000000000001";
                format!("DELETE /v1/executions/{id} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes()
            },
        ),
        answer(
            "language_that_is_a_path",
            "a language's name with `../` loads a folder of the host",
            &[400, 404],
            || {
                let body = r#"{"language":"../../../../tmp","code":""}"#;
                post("/v1/executions", "", body)
            },
        ),
        answer(
            "code_that_is_too_long",
            "the program alone fills the VM, which never answers",
            &[400, 413],
            || {
                let code = "#".repeat(40 << 20);
                let body = format!(r#"{{"language":"bash","code":"{code}"}}"#);
                post("/v1/executions", "", &body)
            },
        ),
    ];
    let body = bash(r#""file_name":"../../bin/sh""#);
    cases.push(answer(
        "program_above_the_work_folder",
        "the supervisor writes the program over a file of the system",
        // Only the ending of the name counts.
        &[200],
        move || post("/v1/executions", "", &body),
    ));
    // Judge0's CVE-2024-28185 and CVE-2024-28189 in the terms of this API: the supervisor writes files for the
    // program, so names and contents must not lead it elsewhere.
    for (name, path) in [
        ("file_above_the_work_folder", "../../etc/passwd"),
        ("file_with_an_absolute_path", "/etc/passwd"),
        ("file_with_a_nul_in_its_name", "a\\u0000b"),
        ("file_without_a_name", ""),
        ("file_that_is_the_folder", "."),
    ] {
        let body = bash(&format!(r#""files":[{{"path":"{path}","content":"x"}}]"#));
        cases.push(refused(
            name,
            "the supervisor writes a file outside of the program's folder",
            move || body.clone(),
        ));
    }
    for (name, naive, fields) in [
        (
            "file_and_folder_of_one_name",
            "the failed request makes the server throw a hot template away",
            r#""files":[{"path":"a","content":""},{"path":"a/b","content":""}]"#.to_owned(),
        ),
        (
            "variable_with_an_equals_sign",
            "a variable's name forges another variable",
            r#""env":{"A=B":"x"}"#.to_owned(),
        ),
        (
            "variable_with_a_nul",
            "execve fails after the VM was taken from the pool",
            r#""env":{"A":"x\u0000y"}"#.to_owned(),
        ),
        (
            "argument_with_a_nul",
            "execve fails after the VM was taken from the pool",
            r#""args":["x\u0000y"]"#.to_owned(),
        ),
        (
            "arguments_beyond_the_limit",
            "execve fails after the VM was taken from the pool",
            format!(r#""args":["{}"]"#, "x".repeat(200_000)),
        ),
        (
            "memory_of_a_petabyte",
            "one client takes the host's memory",
            r#""limits":{"memory_bytes":1125899906842624}"#.to_owned(),
        ),
        (
            "memory_of_nothing",
            "a VM that cannot boot is started again and again",
            r#""limits":{"memory_bytes":0}"#.to_owned(),
        ),
        (
            "time_without_end",
            "a program runs for ever",
            r#""limits":{"wall_time_ms":18446744073709551615}"#.to_owned(),
        ),
        (
            "output_without_end",
            "output is kept until memory is full",
            r#""limits":{"output_bytes":18446744073709551615}"#.to_owned(),
        ),
        (
            "vcpus_by_the_hundred",
            "one client takes all processors",
            r#""limits":{"vcpus":200}"#.to_owned(),
        ),
    ] {
        let body = bash(&fields);
        cases.push(refused(name, naive, move || body.clone()));
    }
    cases.push(case(
        "client::slow_headers",
        "connections that never finish their headers take all places",
        || {
            let mut streams: Vec<TcpStream> = (0..100).map(|_| connect()).collect();
            for stream in &mut streams {
                stream
                    .write_all(b"POST /v1/executions HTTP/1.1\r\nHost:")
                    .unwrap();
            }
            still_serves(&shared());
            for mut stream in streams {
                // The server ends each one, with or without an answer.
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).unwrap();
            }
        },
    ));
    cases
}
