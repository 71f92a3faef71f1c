//! Interfaces of other servers, for their unmodified clients (docs/dialects.md). Each module only translates.

mod isolate;
pub mod judge0;
mod key;
mod memory;
pub mod piston;

use axum::Router;
use axum::routing::MethodRouter;

use crate::jobs::Service;

/// Adds an endpoint below each folder, with and without a slash at its end, because some clients send one.
fn add<const N: usize>(
    mut router: Router<Service>,
    folders: [&str; N],
    name: &str,
    methods: MethodRouter<Service>,
) -> Router<Service> {
    for folder in folders {
        for end in ["", "/"] {
            router = router.route(&format!("{folder}{name}{end}"), methods.clone());
        }
    }
    router
}
