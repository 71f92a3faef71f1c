//! Language images: finds those in the store of `cloude-initramfs`, and builds missing ones.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use cloude_initramfs_builder::pipeline::{
    self, BuildRequest, Cancel, Destination, Program, Progress,
};
use cloude_initramfs_builder::source::LanguageSources;
use cloude_initramfs_builder::store::{Metadata, Store, StoredImage};
use cloude_protocol::language::Language;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::config::{self, ImageSource};
use crate::files::FileIdentity;

/// Images by language.
pub trait Images: Send + Sync {
    /// The image, if it exists and has the version of the language file. Does not build.
    fn ready(&self, language: &Language) -> Option<ReadyImage>;

    /// The image, built if it is missing. Concurrent calls share one build. Fails if the image does not fit in
    /// `memory_mib` of guest memory; the error names the command that helps.
    fn ensure<'a>(
        &'a self,
        language: &'a Arc<Language>,
        memory_mib: u64,
    ) -> BoxFuture<'a, Result<ReadyImage, String>>;
}

/// An image that VMs can boot from, as its record describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyImage {
    /// The initramfs.
    pub path: PathBuf,
    /// The language with the exact version that is in the image: `Python 3.13.5`.
    pub version: Option<String>,
    /// `sha256:…` of the initramfs.
    pub digest: String,
    /// Time of the last comparison with its source, in seconds since 1970.
    pub checked_at: u64,
}

impl ReadyImage {
    /// Seconds since the last comparison with its source.
    pub fn age_s(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |now| now.as_secs().saturating_sub(self.checked_at))
    }

    fn of(image: &StoredImage, language: &Language) -> Self {
        let Metadata {
            program_version,
            archive_digest,
            checked_at,
            ..
        } = &image.metadata;
        ReadyImage {
            path: image.path.clone(),
            version: program_version
                .as_ref()
                .map(|version| language.with_version(version)),
            digest: archive_digest.clone(),
            checked_at: *checked_at,
        }
    }
}

/// An image with its record, valid while the files NAME.cpio and NAME.json have these identities.
type Found = ([FileIdentity; 2], Arc<StoredImage>);

type Build = Shared<BoxFuture<'static, Result<(), String>>>;

/// Images in the store of `cloude-initramfs`.
pub struct BuiltImages {
    store: Store,
    auto_build: bool,
    source: ImageSource,
    /// Folder of the languages. Paths in a language file are relative to the language's folder.
    languages: PathBuf,
    cache_dir: PathBuf,
    cancel: Cancel,
    found: Mutex<HashMap<String, Found>>,
    builds: Mutex<HashMap<String, Build>>,
    threads: TaskTracker,
}

impl BuiltImages {
    /// The images in `config.dir`.
    pub fn new(config: &config::Images, languages: &Path, cache_dir: &Path) -> Self {
        BuiltImages {
            store: Store::open(&config.dir),
            auto_build: config.auto_build,
            source: config.source,
            languages: languages.to_owned(),
            cache_dir: cache_dir.to_owned(),
            cancel: Cancel::new(),
            found: Mutex::default(),
            builds: Mutex::default(),
            threads: TaskTracker::new(),
        }
    }

    /// Cancels all builds. When this returns, none of their processes and temporary files is left.
    pub async fn shut_down(&self) {
        self.cancel.set();
        self.threads.close();
        self.threads.wait().await;
    }

    /// The complete image, if it exists. Costs two stat(2) while the files do not change.
    fn stored(&self, name: &str) -> Option<Arc<StoredImage>> {
        let identity = |ending| {
            let path = self.store.dir().join(format!("{name}.{ending}"));
            Some(FileIdentity::of(&std::fs::metadata(path).ok()?))
        };
        // Taken before the files are read: a file that is replaced meanwhile is read again by the next call.
        let identities = [identity("cpio")?, identity("json")?];
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, image)) = found.get(name)
            && *known == identities
        {
            return Some(Arc::clone(image));
        }
        let image = Arc::new(self.store.get(name)?);
        found.insert(name.to_owned(), (identities, Arc::clone(&image)));
        Some(image)
    }

    /// The stored image, if it has the version of the language file. The error is the reason.
    fn usable(&self, language: &Language) -> Result<Arc<StoredImage>, String> {
        let image = self
            .stored(&language.name)
            .ok_or("it has no image on this server")?;
        let checked = Program::of(language).check(&image.metadata);
        checked.map_err(|error| error.to_string())?;
        Ok(image)
    }

    async fn find(&self, language: &Arc<Language>, memory_mib: u64) -> Result<ReadyImage, String> {
        let name = &language.name;
        let image = match self.usable(language) {
            Ok(image) => image,
            Err(reason) if !self.auto_build => {
                return Err(format!(
                    "the language `{name}`: {reason}; {}",
                    by_hand(name)
                ));
            }
            Err(_) => {
                self.build(language).await.map_err(|error| {
                    format!(
                        "building the image of `{name}` failed: {error}; {} shows more",
                        by_hand(name)
                    )
                })?;
                self.usable(language).map_err(|reason| {
                    format!("the image of `{name}`: {reason}; {}", by_hand(name))
                })?
            }
        };
        fits(&image.metadata, memory_mib)
            .map_err(|error| format!("the image of `{name}`: {error}"))?;
        Ok(ReadyImage::of(&image, language))
    }

    /// The running build of the language, or a new one.
    fn build(&self, language: &Arc<Language>) -> Build {
        let mut builds = self.builds.lock().unwrap_or_else(PoisonError::into_inner);
        // A finished build is forgotten: its image is in the store, or the next call tries again.
        builds.retain(|_, build| build.peek().is_none());
        if let Some(build) = builds.get(&language.name) {
            return build.clone();
        }
        let build = self.start(language).boxed().shared();
        builds.insert(language.name.clone(), build.clone());
        build
    }

    fn start(&self, language: &Arc<Language>) -> impl Future<Output = Result<(), String>> + use<> {
        let (done, built) = oneshot::channel();
        let request = self.request(language);
        let name = language.name.clone();
        let token = self.threads.token();
        // A separate thread, because a build blocks and starts its own tokio runtime.
        let thread = std::thread::Builder::new().name(format!("build-{name}"));
        let spawned = thread.spawn(move || {
            let _token = token;
            let result = request.and_then(|request| {
                tracing::info!(language = name, source = %request.source, "building an image");
                let log = Log { language: &name };
                pipeline::build(&request, &log).map_err(|error| error.to_string())
            });
            match &result {
                Ok(image) => {
                    tracing::info!(language = name, path = %image.path.display(), "image built")
                }
                Err(error) => {
                    tracing::error!(language = name, error, "the build of an image failed")
                }
            }
            let _ = done.send(result.map(|_| ()));
        });
        async move {
            spawned.map_err(|error| error.to_string())?;
            built
                .await
                .unwrap_or_else(|_| Err("the thread of the build panicked; see the log".into()))
        }
    }

    fn request(&self, language: &Language) -> Result<BuildRequest, String> {
        let sources = LanguageSources::new(language, &self.languages.join(&language.name))
            .map_err(|error| format!("`image` of the language: {error}"))?;
        let (source, fallback) = match self.source {
            ImageSource::Auto => sources.with_fallback(),
            ImageSource::Registry => (sources.reference, None),
            ImageSource::Debian => (sources.packages, None),
        };
        let mut request = BuildRequest::new(source, &language.name, &self.cache_dir);
        request.fallback = fallback;
        request.program = Some(Program::of(language));
        request.destination = Destination::Store {
            dir: self.store.dir().to_owned(),
            name: language.name.clone(),
        };
        request.cancel = self.cancel.clone();
        Ok(request)
    }
}

fn by_hand(language: &str) -> String {
    format!("`cloude-initramfs build --language {language}`")
}

fn fits(metadata: &Metadata, memory_mib: u64) -> Result<(), String> {
    metadata
        .summary
        .check_memory(memory_mib << 20)
        .map_err(|error| error.to_string())
}

impl Images for BuiltImages {
    fn ready(&self, language: &Language) -> Option<ReadyImage> {
        let image = self.usable(language).ok()?;
        Some(ReadyImage::of(&image, language))
    }

    fn ensure<'a>(
        &'a self,
        language: &'a Arc<Language>,
        memory_mib: u64,
    ) -> BoxFuture<'a, Result<ReadyImage, String>> {
        self.find(language, memory_mib).boxed()
    }
}

/// Logs the steps of a build.
struct Log<'a> {
    language: &'a str,
}

impl Progress for Log<'_> {
    fn event(&self, event: &pipeline::Event) {
        let language = self.language;
        match event {
            pipeline::Event::Notice { message } => tracing::warn!(language, "{message}"),
            pipeline::Event::Step { message } => tracing::info!(language, "{message}"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stores an image of `bytes` bytes, whose record has `recorded` bytes and `version`.
    fn put_version(config: &config::Images, bytes: usize, recorded: usize, version: Option<&str>) {
        let record = serde_json::json!({
            "version": 2, "builder": "b", "source": "s", "platform": "linux/amd64", "built_at": 1,
            "checked_at": 1, "archive_digest": "sha256:1", "program_version": version,
            "output": "plain", "required_memory": 1,
            "config": {"env": [], "user": "", "working_dir": "", "entrypoint": [], "cmd": []},
            "summary": {
                "entries": 1, "inodes": 1, "file_bytes": 1, "unpacked_bytes": 1, "cpio_bytes": 1,
                "archive_bytes": recorded,
                "warnings": {
                    "capabilities_dropped": 0, "xattrs_dropped": 0, "mtimes_clamped": 0,
                },
            },
        });
        let dir = &config.dir;
        for (ending, content) in [
            ("cpio", vec![b'x'; bytes]),
            ("json", record.to_string().into_bytes()),
        ] {
            let path = dir.join(format!("a.{ending}"));
            let new = dir.join("new");
            std::fs::write(&new, content).unwrap();
            std::fs::rename(new, path).unwrap();
        }
    }

    fn put(config: &config::Images, bytes: usize, recorded: usize) {
        put_version(config, bytes, recorded, None);
    }

    #[test]
    fn only_an_image_of_the_languages_version_is_ready() {
        let folder = tempfile::tempdir().unwrap();
        let config = config::Images {
            dir: folder.path().to_owned(),
            ..config::Images::default()
        };
        let images = BuiltImages::new(&config, folder.path(), folder.path());
        let language: Language = toml::from_str(
            r#"
            name = "a"
            title = "Aleph"
            version = "3.13"
            file = "main.a"
            image = { reference = "a:3.13", debian = { suite = "trixie", packages = ["a"] } }
            run = { command = ["a"] }
            self_test = { code = "", stdin = "", args = [], stdout = "", exit_code = 0 }
            "#,
        )
        .unwrap();

        put_version(&config, 3, 3, Some("3.11.2"));
        assert_eq!(images.ready(&language), None);
        let reason = images.usable(&language).unwrap_err();
        assert!(
            reason.contains("Aleph 3.11.2") && reason.contains("3.13"),
            "{reason}"
        );

        put_version(&config, 4, 4, Some("3.13.5"));
        let ready = images.ready(&language).unwrap();
        assert_eq!(ready.version.as_deref(), Some("Aleph 3.13.5"));
        assert_eq!(ready.digest, "sha256:1");
    }

    #[test]
    fn a_reference_to_this_machine_is_built_from_nothing_else() {
        let language: Language = toml::from_str(
            r#"
            name = "x"
            file = "main.x"
            image = { reference = "oci:/srv/python", debian = { suite = "bookworm", packages = ["x"] } }
            run = { command = ["x"] }
            self_test = { code = "x", stdin = "", args = [], stdout = "x", exit_code = 0 }
            "#,
        )
        .unwrap();
        for source in [ImageSource::Auto, ImageSource::Registry] {
            let config = config::Images {
                source,
                ..config::Images::default()
            };
            let images = BuiltImages::new(
                &config,
                Path::new("/nonexistent"),
                Path::new("/nonexistent"),
            );
            let request = images.request(&language).unwrap();
            assert_eq!(request.source.to_string(), "oci:/srv/python");
            assert_eq!(request.fallback, None);
        }
    }

    #[test]
    fn a_replaced_image_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let config = config::Images {
            dir: folder.path().to_owned(),
            ..config::Images::default()
        };
        let images = BuiltImages::new(&config, folder.path(), folder.path());
        let bytes = || Some(images.stored("a")?.metadata.summary.archive_bytes);
        assert_eq!(bytes(), None);
        put(&config, 3, 3);
        assert_eq!((bytes(), bytes()), (Some(3), Some(3)));
        put(&config, 4, 4);
        assert_eq!(bytes(), Some(4));
        // The record still has the length of the earlier image.
        put(&config, 5, 4);
        assert_eq!(bytes(), None);
        put(&config, 5, 5);
        assert_eq!(bytes(), Some(5));
        std::fs::remove_file(folder.path().join("a.cpio")).unwrap();
        assert_eq!(bytes(), None);
    }
}
