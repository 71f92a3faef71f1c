//! A resolved image, of any source that has layers.

use cloude_protocol::boot::ImageConfig;

use crate::error::BuildError;
use crate::progress::Progress;
use crate::source::manifest::Descriptor;

/// An image, ready to read its layers.
pub(crate) struct Image<'a> {
    pub digest: Option<String>,
    pub config_digest: Option<String>,
    pub config: ImageConfig,
    /// The digest of each layer uncompressed, the bottom one first.
    pub diff_ids: Vec<String>,
    pub layers: Vec<Descriptor>,
    pub opener: Box<dyn OpenLayer + 'a>,
}

/// Opens layers, several at a time.
pub(crate) trait OpenLayer: Sync {
    /// Opens layer `index` for reading.
    fn open<'a>(
        &'a self,
        index: usize,
        layer: &Descriptor,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn BlobRead + 'a>, BuildError>;
}

/// A reader that verifies the digest: the read at the end fails if it is wrong.
pub(crate) trait BlobRead: Send {
    /// As [`std::io::Read::read`], with [`BuildError`].
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, BuildError>;
}
