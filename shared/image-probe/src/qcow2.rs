//! The header of a qcow2 file, as in docs/interop/qcow2.rst of QEMU.

/// Why a qcow2 header is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file ends inside its header.
    #[error("the image is no whole qcow2 file: its header is cut off")]
    Short,
    /// Neither version 2 nor 3.
    #[error("the image is a qcow file of version {0}; versions 2 and 3 are taken")]
    Version(u32),
    /// It stands on another file.
    #[error("the image has a backing file; import one that stands alone (`qemu-img convert -O qcow2`)")]
    BackingFile,
    /// Its data are in another file.
    #[error("the image keeps its data in another file; import one that stands alone (`qemu-img convert -O qcow2`)")]
    DataFile,
    /// It is encrypted.
    #[error("the image is encrypted; import a decrypted one")]
    Encrypted,
    /// It has internal snapshots.
    #[error("the image holds {0} internal snapshots; import one without (`qemu-img convert -O qcow2`)")]
    Snapshots(u32),
    /// It was not closed, or something found it damaged.
    #[error("the image is marked as {0}; repair it (`qemu-img check -r all`) and import it again")]
    Unclean(&'static str),
    /// It needs a feature that is not known.
    #[error("the image needs qcow2 features that are not known here (incompatible bits {0:#x})")]
    Features(u64),
    /// A field has a value that no sound file has.
    #[error("the image is no sound qcow2 file: its {field} is {value}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it says.
        value: u64,
    },
}

const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// QEMU's own limits (block/qcow2.h): 32 MiB of L1 table, 8 MiB of refcount table.
const MAX_L1_BYTES: u64 = 32 << 20;
const MAX_REFCOUNT_BYTES: u64 = 8 << 20;

const EXTENSION_END: u32 = 0;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_ENCRYPTION: u32 = 0x0537_be77;

/// What a qcow2 file's first bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Bytes a guest sees.
    pub virtual_size: u64,
    /// Whether it names a backing file.
    pub has_backing_file: bool,
    cluster_bits: u32,
    crypt_method: u32,
    l1_size: u32,
    l1_offset: u64,
    refcount_offset: u64,
    refcount_clusters: u32,
    snapshots: u32,
    incompatible: u64,
    refcount_order: u32,
    header_length: u32,
    extensions: Vec<u32>,
}

impl Header {
    /// Reads a header from a file's first bytes (as many as there are, up to [`crate::HEAD_BYTES`]).
    ///
    /// # Errors
    /// Where they are not a qcow2 header of version 2 or 3.
    pub fn parse(head: &[u8]) -> Result<Self, HeaderError> {
        let bytes = Bytes(head);
        if !head.starts_with(b"QFI\xfb") {
            return Err(HeaderError::Field { field: "magic", value: bytes.u32(0)?.into() });
        }
        let version = bytes.u32(4)?;
        if !matches!(version, 2 | 3) {
            return Err(HeaderError::Version(version));
        }
        let v3 = version == 3;
        let header_length = if v3 { bytes.u32(100)? } else { 72 };
        Ok(Self {
            version,
            virtual_size: bytes.u64(24)?,
            // Either field is enough: a file of ours that never had one has neither.
            has_backing_file: bytes.u64(8)? != 0 || bytes.u32(16)? != 0,
            cluster_bits: bytes.u32(20)?,
            crypt_method: bytes.u32(32)?,
            l1_size: bytes.u32(36)?,
            l1_offset: bytes.u64(40)?,
            refcount_offset: bytes.u64(48)?,
            refcount_clusters: bytes.u32(56)?,
            snapshots: bytes.u32(60)?,
            incompatible: if v3 { bytes.u64(72)? } else { 0 },
            refcount_order: if v3 { bytes.u32(96)? } else { 4 },
            header_length,
            extensions: extensions(&bytes, header_length)?,
        })
    }

    /// Whether the file may be used as an image: it stands alone, is whole (`file_size` is its length in bytes) and
    /// asks for nothing absurd.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check(&self, file_size: u64) -> Result<(), HeaderError> {
        self.stands_alone()?;
        self.is_clean()?;
        self.tables_fit(file_size)
    }

    fn stands_alone(&self) -> Result<(), HeaderError> {
        if self.has_backing_file {
            return Err(HeaderError::BackingFile);
        }
        if self.incompatible & DATA_FILE != 0 || self.extensions.contains(&EXTENSION_DATA_FILE) {
            return Err(HeaderError::DataFile);
        }
        if self.crypt_method != 0 || self.extensions.contains(&EXTENSION_ENCRYPTION) {
            return Err(HeaderError::Encrypted);
        }
        Ok(())
    }

    fn is_clean(&self) -> Result<(), HeaderError> {
        if self.snapshots != 0 {
            return Err(HeaderError::Snapshots(self.snapshots));
        }
        if self.incompatible & CORRUPT != 0 {
            return Err(HeaderError::Unclean("corrupt"));
        }
        if self.incompatible & DIRTY != 0 {
            return Err(HeaderError::Unclean("not closed properly"));
        }
        let unknown = self.incompatible & !(COMPRESSION | EXTENDED_L2);
        if unknown != 0 {
            return Err(HeaderError::Features(unknown));
        }
        Ok(())
    }

    fn tables_fit(&self, file_size: u64) -> Result<(), HeaderError> {
        let wrong = |field, value| Err(HeaderError::Field { field, value });
        if !(9..=21).contains(&self.cluster_bits) {
            return wrong("cluster size exponent", self.cluster_bits.into());
        }
        if self.refcount_order > 6 {
            return wrong("refcount order", self.refcount_order.into());
        }
        let cluster = 1_u64 << self.cluster_bits;
        // QEMU writes 104 or 112; far more would hide what follows the header from the look at the head.
        if self.version == 3 && !(104..=512).contains(&self.header_length) {
            return wrong("header length", self.header_length.into());
        }
        if self.virtual_size == 0 || !self.virtual_size.is_multiple_of(512) {
            return wrong("disk size", self.virtual_size);
        }
        let entry = if self.incompatible & EXTENDED_L2 == 0 { 8 } else { 16 };
        let per_l1_entry = cluster * (cluster / entry);
        let l1_bytes = u64::from(self.l1_size) * 8;
        if u64::from(self.l1_size) < self.virtual_size.div_ceil(per_l1_entry) || l1_bytes > MAX_L1_BYTES {
            return wrong("L1 table size", self.l1_size.into());
        }
        if !inside(self.l1_offset, l1_bytes, cluster, file_size) {
            return wrong("L1 table offset", self.l1_offset);
        }
        let refcount_bytes = u64::from(self.refcount_clusters) * cluster;
        if refcount_bytes == 0 || refcount_bytes > MAX_REFCOUNT_BYTES {
            return wrong("refcount table size", self.refcount_clusters.into());
        }
        if !inside(self.refcount_offset, refcount_bytes, cluster, file_size) {
            return wrong("refcount table offset", self.refcount_offset);
        }
        Ok(())
    }
}

/// Whether a table begins on a cluster after the first one and ends within the file.
fn inside(offset: u64, bytes: u64, cluster: u64, file_size: u64) -> bool {
    offset >= cluster && offset.is_multiple_of(cluster) && offset.checked_add(bytes).is_some_and(|end| end <= file_size)
}

/// The types of the header extensions, which follow the header up to an end mark.
fn extensions(bytes: &Bytes<'_>, header_length: u32) -> Result<Vec<u32>, HeaderError> {
    let mut at = header_length as usize;
    let mut found = Vec::new();
    // A version 2 file may end its extensions with the first cluster instead of a mark.
    while at + 8 <= bytes.0.len() {
        let kind = bytes.u32(at)?;
        if kind == EXTENSION_END {
            return Ok(found);
        }
        found.push(kind);
        at += 8 + (bytes.u32(at + 4)? as usize).next_multiple_of(8);
    }
    Ok(found)
}

/// Big-endian numbers at offsets.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&self, at: usize) -> Result<[u8; N], HeaderError> {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk::<N>());
        bytes.copied().ok_or(HeaderError::Short)
    }

    fn u32(&self, at: usize) -> Result<u32, HeaderError> {
        self.take(at).map(u32::from_be_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, HeaderError> {
        self.take(at).map(u64::from_be_bytes)
    }
}
