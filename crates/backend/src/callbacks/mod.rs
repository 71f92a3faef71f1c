//! Delivers the results of executions with a `callback_url`. A delivery is in the store from the acceptance of its
//! execution until a server has answered it or its attempts are over, so that it survives a crash of clouded. It may happen
//! more than once.

mod egress;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cloude_protocol::api::Execution;
use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;
use ring::hmac;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::config;
use crate::store::{Delivery, Store, StoreError, now_ms};
use egress::{Egress, Resolver};

/// Deliveries at once. Each has one result in memory.
const AT_ONCE: usize = 4;
/// The longest delay before another attempt.
const MAX_DELAY: Duration = Duration::from_secs(3600);
/// Pause after a failure of the store.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// A request to a client's server.
pub struct Notice {
    pub method: reqwest::Method,
    pub body: Vec<u8>,
}

/// Makes the notice of an execution with a dialect: from the request in it, the result, and the order of its output. None if
/// the request cannot be read.
pub type Form = fn(&str, &Execution, Option<&[u8]>) -> Option<Notice>;

/// Delivers callbacks.
pub struct Callbacks {
    config: config::Callbacks,
    egress: Arc<Egress>,
    /// A delivery is due.
    due: Notify,
}

impl Callbacks {
    /// The deliveries of a server.
    pub fn new(config: &config::Callbacks) -> Self {
        Callbacks {
            config: config.clone(),
            egress: Arc::new(Egress::new(&config.allow)),
            due: Notify::new(),
        }
    }

    /// Where callbacks may go; none if this server delivers no callbacks.
    pub fn egress(&self) -> Option<&Egress> {
        (!self.config.secret.is_empty()).then_some(&*self.egress)
    }

    /// An execution with a callback has ended.
    pub fn wake(&self) {
        self.due.notify_one();
    }

    /// Delivers until the future is dropped. `form`: callbacks of executions with a dialect.
    pub async fn run(&self, store: &Store, form: Form) {
        if self.config.secret.is_empty() {
            return;
        }
        let client = match self.client() {
            Ok(client) => client,
            Err(error) => {
                return tracing::error!(%error, "callbacks are not delivered: no HTTP client");
            }
        };
        let mut running = JoinSet::new();
        let mut ids = HashSet::new();
        loop {
            let next = match store.deliveries(AT_ONCE + ids.len()).await {
                Ok(deliveries) => {
                    self.start((&client, form), store, deliveries, (&mut running, &mut ids))
                }
                Err(error) => {
                    tracing::error!(%error, "reading the callbacks that are due");
                    STORE_PAUSE
                }
            };
            tokio::select! {
                Some(ended) = running.join_next() => if let Ok(id) = ended {
                    ids.remove(&id);
                },
                () = self.due.notified() => {}
                () = tokio::time::sleep(next) => {}
            }
        }
    }

    /// Starts the deliveries that are due, and returns the time until the next one.
    fn start(
        &self,
        (client, form): (&reqwest::Client, Form),
        store: &Store,
        deliveries: Vec<Delivery>,
        (running, ids): (&mut JoinSet<String>, &mut HashSet<String>),
    ) -> Duration {
        let now = now_ms();
        let mut next = MAX_DELAY;
        for delivery in deliveries {
            if ids.contains(&delivery.job) {
                continue;
            }
            if delivery.due_ms > now {
                let wait = u64::try_from(delivery.due_ms - now).unwrap_or(0);
                next = next.min(Duration::from_millis(wait));
            } else if ids.len() < AT_ONCE {
                ids.insert(delivery.job.clone());
                let attempt = Attempt {
                    client: client.clone(),
                    form,
                    config: self.config.clone(),
                    egress: Arc::clone(&self.egress),
                    store: store.clone(),
                };
                running.spawn(async move { attempt.deliver(delivery).await });
            }
        }
        next
    }

    fn client(&self) -> reqwest::Result<reqwest::Client> {
        // Fails only if the process has a rustls provider already.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder()
            .user_agent(concat!("clouded/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(Resolver(Arc::clone(&self.egress))))
            // A redirect could lead to an address that is denied, and a proxy would resolve the name itself.
            .redirect(Policy::none())
            .no_proxy()
            .timeout(Duration::from_millis(self.config.timeout_ms))
            .build()
    }
}

struct Attempt {
    client: reqwest::Client,
    form: Form,
    config: config::Callbacks,
    egress: Arc<Egress>,
    store: Store,
}

impl Attempt {
    /// Tries once and stores the outcome. Returns the execution's id.
    async fn deliver(self, delivery: Delivery) -> String {
        let (id, number) = (delivery.job.clone(), delivery.attempts + 1);
        let outcome = match self.send(&delivery, number).await {
            Ok(()) => {
                tracing::info!(id, attempt = number, "a callback was delivered");
                None
            }
            Err(reason) => {
                let last = number >= self.config.attempts;
                tracing::warn!(id, attempt = number, last, reason, "a callback failed");
                Some((!last).then(|| now_ms().saturating_add(self.delay_ms(number))))
            }
        };
        if let Err(error) = self.store.delivered(&id, number, outcome).await {
            tracing::error!(id, %error, "a callback's outcome is not stored: it may be delivered again");
        }
        id
    }

    /// The delay after attempt `number`.
    fn delay_ms(&self, number: u32) -> i64 {
        let doubled = 1_u64.checked_shl(number - 1).unwrap_or(u64::MAX);
        let delay = self.config.retry_ms.saturating_mul(doubled);
        delay.min(MAX_DELAY.as_millis() as u64) as i64
    }

    async fn send(&self, delivery: &Delivery, number: u32) -> Result<(), String> {
        self.egress
            .check_url(&delivery.url)
            .map_err(|reason| format!("the URL is refused: {reason}"))?;
        let notice = self
            .notice(&delivery.job)
            .await
            .map_err(|error| error.to_string())?;
        let Some(Notice { method, body }) = notice else {
            return Err("the result was removed".into());
        };
        let time = now_ms() / 1000;
        let signature = signature(self.config.secret.expose(), time, &body);
        let request = self
            .client
            .request(method, &delivery.url)
            .header(CONTENT_TYPE, "application/json")
            .header("cloude-execution", &delivery.job)
            .header("cloude-delivery", number)
            .header("cloude-signature", signature)
            .body(body);
        let response = request.send().await.map_err(|error| causes(&error))?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("the server answered {status}")),
        }
    }

    async fn notice(&self, id: &str) -> Result<Option<Notice>, StoreError> {
        let record = self.store.get(id).await?;
        let Some(result) = record.and_then(|record| record.result) else {
            return Ok(None);
        };
        if let Some((_, dialect)) = self.store.dialect(id).await? {
            let order = self.store.order(id).await?;
            return Ok((self.form)(&dialect, &result, order.as_deref()));
        }
        Ok(Some(Notice {
            method: reqwest::Method::POST,
            body: serde_json::to_vec(&*result)?,
        }))
    }
}

/// `t=UNIX,v1=HEX`: HMAC-SHA256 of the time, a dot and the body.
fn signature(secret: &str, time: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{time}.").as_bytes());
    context.update(body);
    format!("t={time},v1={}", const_hex::encode(context.sign()))
}

/// The messages of an error and of all its sources: the outermost names only the URL.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_hmac_sha256_of_time_and_body() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac key
        let expected =
            "t=1700000000,v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae";
        assert_eq!(signature("key", 1_700_000_000, b"{}"), expected);
    }
}
