//! The command line, for clap.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cloude_initramfs_builder::archive::Output;
use cloude_initramfs_builder::limits::Limits;
use cloude_initramfs_builder::pipeline::Platform;

/// Builds, lists and removes the images that micro-VMs boot from.
#[derive(Debug, Parser)]
#[command(name = "cloude-initramfs", version, max_term_width = 100)]
pub struct Cli {
    /// Directory of blobs, packages and images [default: ~/.cache/cloude]
    #[arg(
        long,
        global = true,
        env = "CLOUDE_CACHE_DIR",
        value_name = "DIR",
        hide_env_values = true
    )]
    pub cache_dir: Option<PathBuf>,
    /// Directory of images [default: images in the cache]
    #[arg(
        long,
        global = true,
        env = "VM_INITRAMFS_DIR",
        value_name = "DIR",
        hide_env_values = true
    )]
    pub images_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build images from a registry, a local archive or Debian packages
    Build(Box<BuildArgs>),
    /// Build images again whose source has something newer: another digest, newer packages
    Update(Box<UpdateArgs>),
    /// Show the metadata or the files of an image or an initramfs
    Inspect(InspectArgs),
    /// Print what is installed in an image, as a software bill of materials
    Sbom(SbomArgs),
    /// List the images
    Ls(LsArgs),
    /// Delete images
    Rm(RmArgs),
    /// Delete blobs, packages and partial transfers that no image needs
    Prune(PruneArgs),
    /// Write the manual pages to a folder
    #[command(hide = true)]
    Man { dir: PathBuf },
}

#[derive(Debug, Args)]
pub struct BuildArgs {
    #[arg(
        value_name = "SOURCE",
        required_unless_present_any = ["language", "all_languages"],
        // No doc comment: rustdoc would take the brackets for links.
        help = "registry/name:tag, registry/name@sha256:…, oci:PATH[:TAG], docker-archive:PATH, \
                debian:SUITE[,PACKAGE…], or the path of a local image"
    )]
    pub sources: Vec<String>,
    /// A language, from languages/NAME; may be given several times
    #[arg(short, long, value_name = "NAME")]
    pub language: Vec<String>,
    /// All languages
    #[arg(long)]
    pub all_languages: bool,
    #[command(flatten)]
    pub languages: LanguagesDir,
    /// Source of a language's image: its reference, its Debian packages, or packages of the same version only if the
    /// registry is unreachable
    #[arg(long, value_enum, default_value = "auto")]
    pub source: SourceChoice,
    /// Another package for a debian: source; may be given several times
    #[arg(long, value_name = "PACKAGE")]
    pub package: Vec<String>,
    /// Name of the image [default: derived from its source]
    #[arg(long)]
    pub name: Option<String>,
    /// Write to a file instead of the store
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Compression of the initramfs; plain boots fastest
    #[arg(long, value_enum, default_value = "plain")]
    pub format: Format,
    /// Level for zstd, 1 to 19
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: i32,
    /// Platform to choose; linux/amd64/v3 prefers an image for x86-64-v3
    #[arg(long, default_value_t = Platform::default())]
    pub platform: Platform,
    /// Fail if a VM with this memory cannot boot the image: 512M, 2G
    #[arg(long, value_name = "SIZE", value_parser = super::text::parse_size)]
    pub memory: Option<u64>,
    /// Latest modification time, in seconds since 1970; later ones are set to it
    #[arg(
        long,
        env = "SOURCE_DATE_EPOCH",
        value_name = "SECONDS",
        hide_env_values = true
    )]
    pub source_date_epoch: Option<u32>,
    /// Build even if the image is up to date
    #[arg(short, long)]
    pub force: bool,
    /// Resolve the tag or the suite again
    #[arg(long)]
    pub pull: bool,
    /// Append the modules of this kernel directory, to boot by hand; needs --agent
    #[arg(long, value_name = "DIR", requires = "output", requires = "agent")]
    pub kernel: Option<PathBuf>,
    /// Append this agent and run a shell on the console, to boot by hand
    #[arg(long, value_name = "FILE", requires = "output")]
    pub agent: Option<PathBuf>,
    #[command(flatten)]
    pub show: Show,
    #[command(flatten)]
    pub network: NetworkArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// The output of a build on the terminal.
#[derive(Clone, Copy, Debug, Args)]
pub struct Show {
    /// Print events and results as JSON lines
    #[arg(long)]
    pub json: bool,
    /// Print errors only
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct LanguagesDir {
    /// Directory of the languages
    #[arg(
        long,
        env = "LANGUAGES_CONFIG_PATH",
        value_name = "DIR",
        hide_env_values = true
    )]
    pub languages_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// A mirror to try first: docker.io=URL; for Debian, debian=URL
    #[arg(
        long,
        value_name = "REGISTRY=URL",
        env = "CLOUDE_MIRRORS",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub mirror: Vec<String>,
    /// Allow plain HTTP to this host; loopback is always allowed
    #[arg(
        long,
        value_name = "HOST",
        env = "CLOUDE_ALLOW_HTTP",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub allow_http: Vec<String>,
    /// An option of apt.conf(5) for Debian packages, such as Acquire::Check-Valid-Until=false
    #[arg(long, value_name = "KEY=VALUE")]
    pub apt_option: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits on an image")]
pub struct LimitArgs {
    /// Layers
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_layers)]
    pub max_layers: u64,
    /// Files, directories and links
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_entries)]
    pub max_entries: u64,
    /// All layers, compressed [default: 8G]
    #[arg(long, value_name = "SIZE", value_parser = super::text::parse_size)]
    pub max_compressed_bytes: Option<u64>,
    /// All layers, unpacked [default: 16G]
    #[arg(long, value_name = "SIZE", value_parser = super::text::parse_size)]
    pub max_unpacked_bytes: Option<u64>,
    /// Decompressed bytes per compressed byte
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_ratio)]
    pub max_ratio: u64,
    /// One file [default: 4G - 1, the format's own limit]
    #[arg(long, value_name = "SIZE", value_parser = super::text::parse_size)]
    pub max_file_bytes: Option<u64>,
    /// A whole path
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_path_bytes)]
    pub max_path_bytes: u64,
    /// One file name
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_name_bytes)]
    pub max_name_bytes: u64,
    /// A symlink's target
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_symlink_bytes)]
    pub max_symlink_bytes: u64,
    /// One extension header of a tar
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_header_bytes)]
    pub max_header_bytes: u64,
    /// All names and link targets together [default: 256M]
    #[arg(long, value_name = "SIZE", value_parser = super::text::parse_size)]
    pub max_metadata_bytes: Option<u64>,
    /// Segments of a sparse file
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_sparse_segments)]
    pub max_sparse_segments: u64,
    /// Directory lookups to merge the layers
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_lookups)]
    pub max_lookups: u64,
}

impl LimitArgs {
    pub fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            max_layers: self.max_layers,
            max_entries: self.max_entries,
            max_compressed_bytes: self
                .max_compressed_bytes
                .unwrap_or(default.max_compressed_bytes),
            max_unpacked_bytes: self
                .max_unpacked_bytes
                .unwrap_or(default.max_unpacked_bytes),
            max_ratio: self.max_ratio,
            max_file_bytes: self.max_file_bytes.unwrap_or(default.max_file_bytes),
            max_path_bytes: self.max_path_bytes,
            max_name_bytes: self.max_name_bytes,
            max_symlink_bytes: self.max_symlink_bytes,
            max_header_bytes: self.max_header_bytes,
            max_metadata_bytes: self
                .max_metadata_bytes
                .unwrap_or(default.max_metadata_bytes),
            max_sparse_segments: self.max_sparse_segments,
            max_lookups: self.max_lookups,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SourceChoice {
    /// The image, or the packages if the registry is not reached
    Auto,
    /// The image
    Image,
    /// The packages
    Debian,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    Plain,
    Zstd,
    Lz4,
}

impl Format {
    pub fn output(self, level: i32) -> Output {
        match self {
            Format::Plain => Output::Plain,
            Format::Zstd => Output::Zstd { level },
            Format::Lz4 => Output::Lz4,
        }
    }
}

#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// Names of images; all if none
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub languages: LanguagesDir,
    #[command(flatten)]
    pub show: Show,
    #[command(flatten)]
    pub network: NetworkArgs,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The name of an image, or the path of an initramfs
    pub image: String,
    /// List every entry
    #[arg(short, long)]
    pub files: bool,
    /// Print JSON; with --files one object per line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct SbomArgs {
    /// The name of an image
    pub image: String,
    /// The format
    #[arg(long, value_enum, default_value_t = SbomFormat::SpdxJson)]
    pub format: SbomFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SbomFormat {
    /// SPDX 2.3 as JSON
    SpdxJson,
}

#[derive(Debug, Args)]
pub struct LsArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// Names of images
    #[arg(required = true)]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Print what would be deleted, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
