//! The type information of an object file, as far as maps need it: what `bpftool map dump` prints fields by.
//!
//! A reader of its own, since the loader's does not tell: `Documentation/bpf/btf.rst` of the kernel describes the
//! format.

use super::layout::Field;

/// Type information.
#[derive(Debug)]
pub(super) struct Btf {
    types: Vec<Type>,
}

/// A structure or number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) name: String,
    pub(super) size: u32,
    pub(super) fields: Vec<Field>,
}

#[derive(Debug)]
struct Type {
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A number, or anything else that has a size and no parts of interest.
    Sized(u32),
    Array {
        of: usize,
        count: u32,
    },
    /// Size; name, type and offset in bits of each member.
    Struct(u32, Vec<(String, usize, u32)>),
    /// Pointers, variables, and whatever else stands for another type.
    To(usize),
    Other,
}

impl Btf {
    /// Reads that of an object file.
    pub(super) fn of_object(object: &[u8]) -> Self {
        Self::parse(section(object, ".BTF").expect("type information: built with --btf"))
    }

    /// Key and value of a map that is defined by a variable of its name or, in capitals, of the same letters.
    pub(super) fn map(&self, name: &str) -> (Described, Described) {
        let is_it = |variable: &&Type| {
            variable.name.eq_ignore_ascii_case(name) && matches!(variable.kind, Kind::To(_))
        };
        let variable = self.types.iter().find(is_it).unwrap_or_else(|| panic!("no map {name}"));
        let Kind::To(definition) = variable.kind else { unreachable!("as looked for") };
        (self.pointed_at(definition, "key"), self.pointed_at(definition, "value"))
    }

    /// What the member of a map's definition points at, however deep it is wrapped.
    fn pointed_at(&self, definition: usize, member: &str) -> Described {
        let target = self
            .find(definition, member)
            .unwrap_or_else(|| panic!("no {member} in {:?}", self.types[definition]));
        let Kind::To(target) = self.types[target].kind else { panic!("{member} is no pointer") };
        self.describe(target)
    }

    fn find(&self, within: usize, member: &str) -> Option<usize> {
        let Kind::Struct(_, members) = &self.types[within].kind else { return None };
        let direct = members.iter().find(|(name, ..)| name == member).map(|(_, id, _)| *id);
        direct.or_else(|| members.iter().find_map(|(_, id, _)| self.find(*id, member)))
    }

    fn describe(&self, id: usize) -> Described {
        let Type { name, kind } = &self.types[id];
        let fields = match kind {
            Kind::To(other) => return self.describe(*other),
            Kind::Struct(_, members) => members
                .iter()
                .map(|(name, id, bits)| Field {
                    name: name.clone(),
                    offset: *bits as usize / 8,
                    size: self.size(*id) as usize,
                })
                .collect(),
            _ => Vec::new(),
        };
        Described { name: name.clone(), size: self.size(id), fields }
    }

    fn size(&self, id: usize) -> u32 {
        match &self.types[id].kind {
            Kind::Sized(size) | Kind::Struct(size, _) => *size,
            Kind::Array { of, count } => self.size(*of) * count,
            Kind::To(other) => self.size(*other),
            Kind::Other => panic!("{:?} has no size", self.types[id]),
        }
    }

    fn parse(bytes: &[u8]) -> Self {
        assert_eq!(&bytes[..2], [0x9f, 0xeb], "the magic number of type information, little-endian");
        let header = u32_at(bytes, 4) as usize;
        let part =
            |at: usize| &bytes[header + u32_at(bytes, at) as usize..][..u32_at(bytes, at + 4) as usize];
        let (mut rest, strings) = (part(8), part(16));
        let name = |at: u32| {
            let tail = &strings[at as usize..];
            String::from_utf8_lossy(&tail[..tail.iter().position(|byte| *byte == 0).expect("an end")])
                .into_owned()
        };
        // Type 0 is `void`, and not listed.
        let mut types = vec![Type { name: "void".to_owned(), kind: Kind::Other }];
        while !rest.is_empty() {
            let (info, size_or_type) = (u32_at(rest, 4), u32_at(rest, 8));
            let count = (info & 0xffff) as usize;
            let extra = &rest[12..];
            let (kind, length) = match (info >> 24) & 0x1f {
                1 => (Kind::Sized(size_or_type), 4),
                3 => (Kind::Array { of: u32_at(extra, 0) as usize, count: u32_at(extra, 8) }, 12),
                4 => {
                    let member = |at: usize| {
                        (
                            name(u32_at(extra, at)),
                            u32_at(extra, at + 4) as usize,
                            u32_at(extra, at + 8) & 0x00ff_ffff,
                        )
                    };
                    (Kind::Struct(size_or_type, (0..count).map(|n| member(n * 12)).collect()), count * 12)
                }
                5 | 15 | 19 => (Kind::Sized(size_or_type), count * 12),
                6 => (Kind::Sized(size_or_type), count * 8),
                2 | 8..=12 | 18 => (Kind::To(size_or_type as usize), 0),
                14 => (Kind::To(size_or_type as usize), 4),
                7 => (Kind::Other, 0),
                13 => (Kind::Other, count * 8),
                16 => (Kind::Sized(size_or_type), 0),
                17 => (Kind::Other, 4),
                kind => panic!("type information of the unknown kind {kind}"),
            };
            types.push(Type { name: name(u32_at(rest, 0)), kind });
            rest = &extra[length..];
        }
        Self { types }
    }
}

/// A section of a little-endian ELF file of 64 bits.
fn section<'a>(elf: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    let table = u64_at(elf, 0x28);
    let (entry, count, names) = (u16_at(elf, 0x3a), u16_at(elf, 0x3c), u16_at(elf, 0x3e));
    let header = |number: usize| &elf[table + number * entry..][..entry];
    let content = |header: &[u8]| &elf[u64_at(header, 24)..][..u64_at(header, 32)];
    let names = content(header(names));
    let is_wanted = |header: &&[u8]| {
        let name = &names[u32_at(header, 0) as usize..];
        name.starts_with(wanted.as_bytes()) && name[wanted.len()] == 0
    };
    (0..count).map(header).find(is_wanted).map(content)
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")))
        .expect("a file of this size")
}
