//! A malicious registry: endless bodies, redirects to plain HTTP, stolen credentials.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod registry_support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use registry_support::Tool;

/// An address outside of loopback, to which plain HTTP is refused.
const ELSEWHERE: &str = "http://10.255.255.1:5000";
/// base64 of `someone:secret`.
const PASSWORD: &str = "c29tZW9uZTpzZWNyZXQ=";

/// A server that answers each request with `answer`. Returns its address and the heads of all requests.
fn serve(
    answer: impl Fn(&str, &mut TcpStream) + Send + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            // A TLS ClientHello contains no blank line.
            while !head.ends_with(b"\r\n\r\n") && matches!(client.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
                if head[0] == 0x16 {
                    break;
                }
            }
            if head.ends_with(b"\r\n\r\n") {
                let head = String::from_utf8(head).unwrap();
                answer(&head, &mut client);
                seen.lock().unwrap().push(head);
            }
        }
    });
    (address, heads)
}

fn head(client: &mut TcpStream, status: &str, headers: &str) {
    let text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
    client.write_all(text.as_bytes()).unwrap();
}

#[test]
fn an_endless_manifest_is_refused() {
    let (address, _) = serve(|_, client| {
        head(client, "200 OK", "");
        while client.write_all(&[b' '; 65_536]).is_ok() {}
    });
    let stderr = Tool::new().fail(&[&format!("{address}/app:v1")]);
    assert!(
        stderr.contains("more than announced or allowed"),
        "{stderr}"
    );
}

#[test]
fn a_redirect_to_plain_http_is_refused() {
    let (address, _) = serve(|_, client| {
        let location = format!("Location: {ELSEWHERE}/app\r\nContent-Length: 0\r\n");
        head(client, "307 Temporary Redirect", &location);
    });
    let stderr = Tool::new().fail(&[&format!("{address}/app:v1")]);
    assert!(
        stderr.contains("refusing plain HTTP to 10.255.255.1:5000"),
        "{stderr}"
    );
}

#[test]
fn a_token_server_over_plain_http_gets_no_password() {
    let (address, _) = serve(|_, client| {
        let challenge = format!("WWW-Authenticate: Bearer realm=\"{ELSEWHERE}/token\"\r\n");
        head(
            client,
            "401 Unauthorized",
            &(challenge + "Content-Length: 0\r\n"),
        );
    });
    let tool = Tool::new();
    tool.log_in(&address, PASSWORD);
    let stderr = tool.fail(&[&format!("{address}/app:v1")]);
    assert!(
        stderr.contains("refusing plain HTTP to 10.255.255.1:5000"),
        "{stderr}"
    );
}

#[test]
fn a_password_does_not_follow_a_redirect_to_another_host() {
    let (elsewhere, strangers) = serve(|_, client| {
        head(client, "404 Not Found", "Content-Length: 0\r\n");
    });
    let (address, own) = serve(move |request, client| {
        if request.contains("authorization: Basic") {
            let location = format!("Location: http://{elsewhere}/x\r\nContent-Length: 0\r\n");
            head(client, "307 Temporary Redirect", &location);
        } else {
            let challenge = "WWW-Authenticate: Basic realm=\"r\"\r\nContent-Length: 0\r\n";
            head(client, "401 Unauthorized", challenge);
        }
    });
    let tool = Tool::new();
    tool.log_in(&address, PASSWORD);

    tool.fail(&[&format!("{address}/app:v1")]);

    assert!(own.lock().unwrap().iter().any(|it| it.contains(PASSWORD)));
    let strangers = strangers.lock().unwrap();
    assert!(!strangers.is_empty());
    assert!(!strangers.iter().any(|it| it.contains("authorization")));
}

#[test]
fn an_endless_token_is_refused() {
    let (tokens, _) = serve(|_, client| {
        head(client, "200 OK", "");
        while client.write_all(&[b' '; 65_536]).is_ok() {}
    });
    let (address, _) = serve(move |_, client| {
        let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{tokens}/\"\r\n");
        head(
            client,
            "401 Unauthorized",
            &(challenge + "Content-Length: 0\r\n"),
        );
    });
    let stderr = Tool::new().fail(&[&format!("{address}/app:v1")]);
    assert!(stderr.contains("the token request"), "{stderr}");
}
