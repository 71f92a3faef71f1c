//! An image of layers, wherever they are.

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

/// Gives the bytes of layers, several at a time.
pub(crate) trait OpenLayer: Sync {
    /// Opens layer `index`. The reader reports to `progress` how far it is.
    fn open<'a>(
        &'a self,
        index: usize,
        layer: &Descriptor,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn BlobRead + 'a>, BuildError>;
}

/// Bytes that are checked against their digest: the last read, of no bytes, fails if they are not
/// those of the digest.
pub(crate) trait BlobRead: Send {
    /// As [`std::io::Read::read`], with our own errors.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, BuildError>;
}
