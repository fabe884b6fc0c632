//! How is a map read and written whose layout is not known when this is compiled? By the sizes that the kernel tells.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, MapInfo, MapType};

use super::sys::{self, MapElem, bpf};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
pub(super) const BPF_F_NO_PREALLOC: u32 = 1;

/// `union bpf_attr` for BPF_MAP_CREATE, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// A map of any layout.
pub(crate) struct RawMap {
    data: MapData,
    pub(super) info: MapInfo,
    /// Bytes of a key.
    key: usize,
    /// Bytes of a value as the system call has it: of a per-CPU map, those of all CPUs.
    value: usize,
}

impl RawMap {
    /// Opens a pinned map.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let opened = MapData::from_pin(path).map_err(anyhow::Error::from).and_then(Self::new);
        opened.with_context(|| format!("open {}", path.display()))
    }

    /// Opens a pinned map to be looked at alone.
    pub(crate) fn open_read_only(path: &Path) -> Result<Self> {
        let opened = sys::open_read_only(path).map_err(anyhow::Error::from);
        opened
            .and_then(|fd| Self::new(MapData::from_fd(fd)?))
            .with_context(|| format!("open {}", path.display()))
    }

    /// Makes an array.
    pub(crate) fn array(name: &str, value: usize, entries: u32) -> Result<Self> {
        let value = u32::try_from(value).with_context(|| format!("map {name}"))?;
        let fd = create(name, BPF_MAP_TYPE_ARRAY, value, entries, None);
        Self::new(MapData::from_fd(fd.with_context(|| format!("make map {name}"))?)?)
    }

    /// Makes a hash map that takes memory for what is in it alone.
    pub(super) fn hash(name: &str, key_size: u32, value_size: u32, max_entries: u32) -> Result<Self> {
        let map_flags = BPF_F_NO_PREALLOC;
        let attr = MapCreate {
            map_type: BPF_MAP_TYPE_HASH,
            key_size,
            value_size,
            max_entries,
            map_flags,
            ..MapCreate::default()
        };
        let fd = make(name, attr).with_context(|| format!("make map {name}"))?;
        Self::new(MapData::from_fd(fd)?)
    }

    fn new(data: MapData) -> Result<Self> {
        let info = data.info()?;
        let per_cpu = matches!(
            info.map_type(),
            Ok(MapType::PerCpuArray | MapType::PerCpuHash | MapType::LruPerCpuHash)
        );
        let mut value = info.value_size() as usize;
        if per_cpu {
            let cpus = aya::util::nr_cpus().map_err(|(what, err)| super::maps::err_in(what, err))?;
            value = value.next_multiple_of(8) * cpus;
        }
        Ok(Self { key: info.key_size() as usize, value, data, info })
    }

    /// Pins the map.
    pub(crate) fn pin(&self, path: &Path) -> io::Result<()> {
        sys::pin(self.data.fd(), path)
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.value];
        self.check(key, &value)?;
        let mut attr = self.element(key, value.as_mut_ptr() as u64);
        // SAFETY: `attr` is laid out as the kernel's for this command; key and value are as long as the kernel says that
        // the map's are.
        match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) } {
            Ok(_) => Ok(Some(value)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Adds or replaces an element.
    pub(crate) fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key, value)?;
        let mut attr = self.element(key, value.as_ptr() as u64);
        // SAFETY: as in `get`; the kernel only reads the value.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }.map(|_| ())
    }

    /// All keys, one behind the other; elements that come or go meanwhile may be missing or appear twice.
    pub(crate) fn keys(&self) -> io::Result<Vec<u8>> {
        let mut keys: Vec<u8> = Vec::new();
        let mut next = vec![0; self.key];
        // Where the last key was removed, the kernel begins anew.
        while keys.len() / self.key <= 2 * self.info.max_entries() as usize {
            let last = keys.rchunks(self.key).next().map_or(0, |key| key.as_ptr() as u64);
            let mut attr =
                MapElem { map_fd: self.fd(), pad: 0, key: last, value: next.as_mut_ptr() as u64, flags: 0 };
            // SAFETY: `attr` is laid out as the kernel's for this command; both keys are as long as it says they are.
            match unsafe { bpf(BPF_MAP_GET_NEXT_KEY, &mut attr) } {
                Ok(_) => keys.extend_from_slice(&next),
                Err(err) if err.kind() == io::ErrorKind::NotFound => break,
                Err(err) => return Err(err),
            }
        }
        Ok(keys)
    }

    /// Bytes of a key and of a value.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.key, self.value)
    }

    fn check(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if (key.len(), value.len()) == (self.key, self.value) {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }

    fn element(&self, key: &[u8], value: u64) -> MapElem {
        MapElem { map_fd: self.fd(), pad: 0, key: key.as_ptr() as u64, value, flags: 0 }
    }

    fn fd(&self) -> u32 {
        self.data.fd().as_fd().as_raw_fd().cast_unsigned()
    }
}

/// Makes a map whose keys are of four bytes; one of maps like `inner`, if there is that.
pub(super) fn create(
    name: &str,
    map_type: u32,
    value_size: u32,
    max_entries: u32,
    inner: Option<&OwnedFd>,
) -> io::Result<OwnedFd> {
    let inner_map_fd = inner.map_or(0, |inner| inner.as_raw_fd().cast_unsigned());
    let attr =
        MapCreate { map_type, key_size: 4, value_size, max_entries, inner_map_fd, ..MapCreate::default() };
    make(name, attr)
}

fn make(name: &str, mut attr: MapCreate) -> io::Result<OwnedFd> {
    attr.name.iter_mut().zip(name.bytes().take(15)).for_each(|(to, from)| *to = from);
    // SAFETY: `attr` is laid out as the kernel's for this command, and holds no pointers.
    let fd = unsafe { bpf(BPF_MAP_CREATE, &mut attr) }?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
