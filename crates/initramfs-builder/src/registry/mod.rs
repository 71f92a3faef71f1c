//! Images from registries, over the API of the OCI distribution specification 1.1.

/// How to reach registries.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// Registries and the URLs of mirrors of them, which are asked first, in order.
    pub mirrors: Vec<(String, String)>,
    /// Hosts, with the port if any, for which plain http is allowed. Loopback always is.
    pub allow_http: Vec<String>,
}
/// t
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// t
    #[error("cannot be reached")]
    Unreachable,
}
impl RegistryError { pub(crate) fn is_unreachable(&self) -> bool { true } }
pub(crate) struct RegistryImages;
impl RegistryImages {
    pub fn new(_: &RegistryOptions, _: crate::cache::BlobCache, _: crate::pipeline::Cancel) -> Result<Self, RegistryError> { Ok(RegistryImages) }
    pub fn resolve<'a>(&'a self, _: &crate::source::Reference, _: &crate::pipeline::Platform, _: &dyn crate::pipeline::Progress) -> Result<crate::pipeline::Image<'a>, RegistryError> { Err(RegistryError::Unreachable) }
}
