//! The languages of a server.

use serde::{Deserialize, Serialize};

/// An item of the response to `GET /v1/languages`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LanguageInfo {
    /// Its name.
    pub name: String,
    /// Other names it answers to.
    pub aliases: Vec<String>,
    /// File name extensions, without the dot.
    pub extensions: Vec<String>,
    /// True if its initramfs is built, with the version that the language asks for.
    pub image_ready: bool,
    /// The compiler or interpreter with its exact version: `Python 3.13.5`. None if there is no image, or if it does
    /// not record a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `sha256:…` of the image's initramfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// For how many seconds the image has not been compared with its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_age_s: Option<u64>,
}
