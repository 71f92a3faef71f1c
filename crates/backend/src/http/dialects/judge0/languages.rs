//! `/languages`: one item for each id of a language, with the version that this server has.

use axum::Json;
use axum::extract::State;
use cloude_protocol::language::{Command, Judge0, Language};
use serde::Serialize;

use crate::http::error::{ApiError, RequestError};
use crate::http::extract::ApiPath;
use crate::jobs::Service;

/// A language in a list.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Item {
    pub id: u32,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_archived: Option<bool>,
}

/// The answer to `GET /languages/{id}`.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Details {
    id: u32,
    name: String,
    is_archived: bool,
    source_file: String,
    compile_cmd: Option<String>,
    run_cmd: String,
}

/// `GET /languages`: those whose images are built.
pub async fn active(State(service): State<Service>) -> Json<Vec<Item>> {
    let mut all = items(&service);
    all.retain(|item| item.is_archived == Some(false));
    for item in &mut all {
        item.is_archived = None;
    }
    Json(all)
}

/// `GET /languages/all`: those without an image are archived.
pub async fn all(State(service): State<Service>) -> Json<Vec<Item>> {
    Json(items(&service))
}

/// `GET /languages/{id}`
pub async fn one(
    State(service): State<Service>,
    ApiPath(id): ApiPath<String>,
) -> Result<Json<Details>, ApiError> {
    let language = id
        .parse()
        .ok()
        .and_then(|id| Some((id, service.judge0_language(id)?)));
    let Some((id, language)) = language else {
        return Err(RequestError::NoEndpoint.into());
    };
    let image = service.image_version(&language);
    Ok(Json(Details {
        id,
        name: name(&language, image.as_deref()),
        is_archived: image.is_none(),
        source_file: language.file.clone(),
        compile_cmd: language.compile.as_ref().map(text),
        run_cmd: text(&language.run),
    }))
}

/// All ids, in the order of names.
fn items(service: &Service) -> Vec<Item> {
    let mut items = Vec::new();
    for info in service.languages() {
        let Some(language) = service.language(&info.name) else {
            continue;
        };
        let name = name(&language, info.version.as_deref());
        let ids = language.judge0.iter().flat_map(|judge0| &judge0.ids);
        items.extend(ids.map(|id| Item {
            id: *id,
            name: name.clone(),
            is_archived: Some(!info.image_ready),
        }));
    }
    items.sort_unstable_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    items
}

/// The name with our version: `Python (3.13.5)`, `C++ (G++ 14.2.0)`. `image`: the version of the image with its title.
pub fn name(language: &Language, image: Option<&str>) -> String {
    let Judge0 { name, .. } = match &language.judge0 {
        Some(judge0) => judge0,
        None => return language.name.clone(),
    };
    let version = match (image, &language.version) {
        (Some(image), _) => image.to_owned(),
        (None, Some(version)) => language.with_version(version),
        (None, None) => return name.clone(),
    };
    let short = version.strip_prefix(name.as_str()).unwrap_or(&version);
    format!("{name} ({})", short.trim_start())
}

fn text(command: &Command) -> String {
    command.command.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_our_version() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../languages");
        let language = |name| cloude_protocol::languages::load(dir.as_ref(), name).unwrap();
        for (of, image, expected) in [
            ("python", Some("Python 3.13.5"), "Python (3.13.5)"),
            ("cpp", Some("G++ 14.2.0"), "C++ (G++ 14.2.0)"),
            ("node", None, "JavaScript (Node.js 20)"),
        ] {
            assert_eq!(name(&language(of), image), expected);
        }
    }
}
