//! What the kernel knows of a map's types: the names, places and sizes of their fields (BTF), by which `bpftool map dump`
//! prints them and `takeover` carries entries from one layout into another.
//!
//! A reader of its own, since the loader's does not tell: `Documentation/bpf/btf.rst` of the kernel describes the
//! format.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::libc;

use super::object_info::object_info;

/// A key or a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The name of its type.
    pub name: String,
    /// Bytes.
    pub size: usize,
    /// Its fields, if it is a structure, in their order.
    pub fields: Vec<Field>,
    /// What it consists of, however deep: of a number only itself, without a name.
    pub leaves: Vec<Leaf>,
}

/// A field of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Bytes before it.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// A number, or several of them: what has no fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The names of the fields that lead there, with dots between them.
    pub path: String,
    /// Bytes before it.
    pub offset: usize,
    /// Bytes of each.
    pub size: usize,
    /// How many, one after the other.
    pub count: usize,
}

/// What is known of the types of a map's keys and values; nothing if it was made without telling.
///
/// # Errors
/// When the kernel cannot be asked, for which it wants `CAP_SYS_ADMIN`.
pub fn of_map(map: BorrowedFd<'_>) -> io::Result<Option<(Described, Described)>> {
    let info = object_info(map, MapInfo::default())?;
    if info.btf == 0 {
        return Ok(None);
    }
    let types = open(info.btf)?;
    // Given no room, the kernel says how much it takes.
    let BtfInfo { size, .. } = object_info(types.as_fd(), BtfInfo::default())?;
    let mut bytes = vec![0_u8; size as usize];
    object_info(types.as_fd(), BtfInfo { bytes: bytes.as_mut_ptr() as u64, size, ..BtfInfo::default() })?;
    Ok(Types::parse(&bytes).and_then(|types| {
        let describe = |id: u32| types.describe(id as usize);
        describe(info.key_type).zip(describe(info.value_type))
    }))
}

/// The beginning of the kernel's `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    kernels_value_type: u32,
    device: u64,
    inode: u64,
    btf: u32,
    key_type: u32,
    value_type: u32,
    padding: u32,
}

/// The kernel's `struct bpf_btf_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct BtfInfo {
    bytes: u64,
    size: u32,
    id: u32,
    name: u64,
    name_length: u32,
    of_kernel: u32,
}

/// Opens type information by its number (`BPF_BTF_GET_FD_BY_ID`).
fn open(id: u32) -> io::Result<OwnedFd> {
    const BTF_GET_FD_BY_ID: libc::c_long = 19;
    // SAFETY: the attribute is the first member of BPF_BTF_GET_FD_BY_ID, a number.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BTF_GET_FD_BY_ID, &raw const id, size_of::<u32>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so this is a descriptor of ours alone; the kernel opens it with O_CLOEXEC.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[derive(Debug)]
struct Types(Vec<Type>);

#[derive(Debug)]
struct Type {
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A number, or anything else that has a size and no parts of interest.
    Sized(usize),
    Array {
        of: usize,
        count: usize,
    },
    /// Size; name, type and offset in bits of each member.
    Struct(usize, Vec<(String, usize, usize)>),
    /// Whatever else stands for another type.
    To(usize),
    Other,
}

impl Types {
    /// What is told of a type; `None` if that makes no sense.
    fn describe(&self, id: usize) -> Option<Described> {
        let Type { name, kind } = self.0.get(id)?;
        let fields = match kind {
            Kind::To(other) => return self.describe(*other),
            Kind::Struct(_, members) => {
                let field = |(name, id, bits): &(String, usize, usize)| {
                    Some(Field { name: name.clone(), offset: bits / 8, size: self.size(*id)? })
                };
                members.iter().map(field).collect::<Option<_>>()?
            }
            _ => Vec::new(),
        };
        let mut leaves = Vec::new();
        self.leaves(id, "", 0, &mut leaves)?;
        Some(Described { name: name.clone(), size: self.size(id)?, fields, leaves })
    }

    fn leaves(&self, id: usize, path: &str, offset: usize, found: &mut Vec<Leaf>) -> Option<()> {
        let leaf = |size, count| Leaf { path: path.to_owned(), offset, size, count };
        match &self.0.get(id)?.kind {
            Kind::To(other) => self.leaves(*other, path, offset, found)?,
            Kind::Struct(_, members) => {
                for (name, id, bits) in members {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    self.leaves(*id, &path, offset + bits / 8, found)?;
                }
            }
            Kind::Array { of, count } => found.push(leaf(self.size(*of)?, *count)),
            Kind::Sized(size) => found.push(leaf(*size, 1)),
            Kind::Other => return None,
        }
        Some(())
    }

    fn size(&self, id: usize) -> Option<usize> {
        match &self.0.get(id)?.kind {
            Kind::Sized(size) | Kind::Struct(size, _) => Some(*size),
            Kind::Array { of, count } => Some(self.size(*of)? * count),
            Kind::To(other) => self.size(*other),
            Kind::Other => None,
        }
    }

    /// Reads type information; `None` if it is none, or has kinds of types younger than vnet.
    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.get(..2)? != [0x9f, 0xeb] {
            return None;
        }
        let header = u32_at(bytes, 4)? as usize;
        let part = |at: usize| {
            let begin = header + u32_at(bytes, at)? as usize;
            bytes.get(begin..begin + u32_at(bytes, at + 4)? as usize)
        };
        let (mut rest, strings) = (part(8)?, part(16)?);
        let name = |at: u32| {
            let tail = strings.get(at as usize..)?;
            let end = tail.iter().position(|byte| *byte == 0)?;
            Some(String::from_utf8_lossy(&tail[..end]).into_owned())
        };
        // Type 0 is `void`, and not listed.
        let mut types = vec![Type { name: "void".to_owned(), kind: Kind::Other }];
        while !rest.is_empty() {
            let (info, size_or_type) = (u32_at(rest, 4)?, u32_at(rest, 8)? as usize);
            let count = (info & 0xffff) as usize;
            let extra = rest.get(12..)?;
            let (kind, length) = match (info >> 24) & 0x1f {
                // A number.
                1 => (Kind::Sized(size_or_type), 4),
                3 => (Kind::Array { of: u32_at(extra, 0)? as usize, count: u32_at(extra, 8)? as usize }, 12),
                4 => {
                    let member = |at: usize| {
                        let bits = u32_at(extra, at + 8)? & 0x00ff_ffff;
                        Some((name(u32_at(extra, at)?)?, u32_at(extra, at + 4)? as usize, bits as usize))
                    };
                    let members = (0..count).map(|n| member(n * 12)).collect::<Option<_>>()?;
                    (Kind::Struct(size_or_type, members), count * 12)
                }
                // Unions, sections of data, enumerations of 64 bits.
                5 | 15 | 19 => (Kind::Sized(size_or_type), count * 12),
                // Enumerations.
                6 => (Kind::Sized(size_or_type), count * 8),
                // Pointers, names for types, qualifiers, functions and marks.
                2 | 8..=12 | 18 => (Kind::To(size_or_type), 0),
                // Variables.
                14 => (Kind::To(size_or_type), 4),
                7 => (Kind::Other, 0),
                13 => (Kind::Other, count * 8),
                // Numbers with a fraction.
                16 => (Kind::Sized(size_or_type), 0),
                17 => (Kind::Other, 4),
                _ => return None,
            };
            types.push(Type { name: name(u32_at(rest, 0)?)?, kind });
            rest = extra.get(length..)?;
        }
        Some(Self(types))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}
