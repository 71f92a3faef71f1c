//! Judge0 1.13: `/submissions`, `/languages` and the other paths at the root, and the same below `/judge0`. Submissions are
//! durable executions.

mod archive;
mod bounds;
mod callback;
mod fields;
mod form;
mod info;
mod languages;
mod many;
mod refusal;
mod request;
mod status;
mod submission;
mod submissions;
mod verdict;
mod view;

use axum::Router;
use axum::routing::{delete, get, post};
use cloude_protocol::keys::Scope;

use super::{add, key};
use crate::jobs::Service;

pub use callback::callback;

/// The routes.
pub fn routes(service: &Service) -> Router<Service> {
    let read = |methods| key::require(service, Scope::Read, key::x_auth, methods);
    let run = |methods| key::require(service, Scope::Run, key::x_auth, methods);
    let mut router = Router::new();
    for (name, methods) in [
        (
            "submissions",
            read(get(many::index)).merge(run(post(submissions::create))),
        ),
        (
            "submissions/batch",
            read(get(many::show_batch)).merge(run(post(many::create_batch))),
        ),
        (
            "submissions/{token}",
            read(get(submissions::show)).merge(run(delete(submissions::destroy))),
        ),
        ("languages", read(get(languages::active))),
        ("languages/all", read(get(languages::all))),
        ("languages/{id}", read(get(languages::one))),
        ("statuses", read(get(info::statuses))),
        ("about", read(get(info::about))),
        ("version", read(get(info::version))),
        ("license", read(get(info::license))),
        ("config_info", read(get(info::config_info))),
        ("system_info", read(get(info::system_info))),
        ("workers", read(get(info::workers))),
        ("authenticate", read(post(info::authorized))),
        ("authorize", run(post(info::authorized))),
    ] {
        router = add(router, ["/", "/judge0/"], name, methods);
    }
    router
}
