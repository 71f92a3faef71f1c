//! HTTP requests with curl(1), so that the API is tested with an unrelated client.

use std::process::Command;

use serde_json::Value;

use crate::host;

/// An HTTP response.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// The status line and the headers in lower case.
    pub headers: String,
    /// The body as JSON; null if it is not JSON.
    pub body: Value,
}

/// Sends a GET request; `None` if curl gets no response.
pub fn get(url: &str) -> Option<Answer> {
    curl(&[url])
}

/// Sends a POST request with a JSON body. Panics if curl gets no response.
pub fn post(url: &str, body: &str) -> Answer {
    let answer = curl(&[
        "--header",
        "content-type: application/json",
        "--data-binary",
        body,
        url,
    ]);
    answer.unwrap_or_else(|| panic!("{url} did not answer"))
}

/// Runs curl with these arguments; `None` if curl gets no response.
pub fn curl(arguments: &[&str]) -> Option<Answer> {
    let output = Command::new("curl")
        .arg("--max-time")
        .arg(host::patience().as_secs().to_string())
        .args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--dump-header",
            "/dev/stderr",
            "--write-out",
            "\n%{http_code}",
        ])
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("curl: {error}: run tools/setup"));
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let (body, status) = text.rsplit_once('\n')?;
    Some(Answer {
        status: status.parse().ok()?,
        headers: String::from_utf8_lossy(&output.stderr).to_lowercase(),
        body: serde_json::from_str(body).unwrap_or(Value::Null),
    })
}
