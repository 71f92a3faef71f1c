//! The languages of a server.

use serde::{Deserialize, Serialize};

/// The response to `GET /v1/languages/{name}`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LanguageDetails {
    /// The language.
    #[serde(flatten)]
    pub language: LanguageInfo,
    /// The name that the program's file gets in the work directory.
    pub file: String,
    /// Compiled before it runs.
    pub compiled: bool,
    /// A program to begin with.
    pub example: Example,
}

/// A program that reads its standard input and its arguments, and writes a file: the language's self-test.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Example {
    /// The program.
    pub code: String,
    /// Its standard input.
    pub stdin: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// The standard output that it prints.
    pub stdout: String,
    /// The code with which it exits.
    pub exit_code: i32,
}

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
