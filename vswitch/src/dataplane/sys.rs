//! The few bpf(2) calls that aya does not have: opening a pin read-only, removing an element, looking up in batches.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use bytemuck::Pod;

const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_F_RDONLY: u32 = 1 << 3;

/// `union bpf_attr` for BPF_OBJ_GET.
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `union bpf_attr` for BPF_MAP_*_ELEM and BPF_MAP_GET_NEXT_KEY.
#[repr(C)]
pub(super) struct MapElem {
    pub(super) map_fd: u32,
    pub(super) pad: u32,
    pub(super) key: u64,
    pub(super) value: u64,
    pub(super) flags: u64,
}

/// `union bpf_attr` for BPF_MAP_*_BATCH.
#[repr(C)]
struct MapBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Opens a pinned map for look-ups alone: its mode need not allow more.
pub(super) fn open_read_only(path: &Path) -> io::Result<OwnedFd> {
    open(path, BPF_F_RDONLY)
}

fn open(path: &Path, file_flags: u32) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjGet { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags };
    // SAFETY: `attr` is laid out as the kernel's for this command, and the string that it points to outlives the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attr) }?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Detaches a pinned link now. Removing its pin alone would leave that to a work queue.
pub(super) fn detach_link(path: &Path) -> io::Result<()> {
    let link = open(path, 0)?;
    let mut link_fd = link.as_raw_fd();
    // SAFETY: for this command the kernel's `attr` is the link's descriptor alone, which `link` holds open.
    unsafe { bpf(BPF_LINK_DETACH, &mut link_fd) }.map(|_| ())
}

/// Removes an element; that there is none is no error.
pub(super) fn delete<K: Pod>(map: impl AsFd, key: &K) -> io::Result<()> {
    let mut attr = MapElem {
        map_fd: map.as_fd().as_raw_fd().cast_unsigned(),
        pad: 0,
        key: std::ptr::from_ref(key) as u64,
        value: 0,
        flags: 0,
    };
    // SAFETY: `attr` is laid out as the kernel's for this command; the key lives and has the map's key size, which
    // `maps::check` has compared.
    match unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attr) } {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// All elements of a hash map, in few calls. Elements that come or go meanwhile may be missing or appear twice.
pub(super) fn entries<K: Pod, V: Pod>(map: impl AsFd, max_entries: u32) -> io::Result<Vec<(K, V)>> {
    let map_fd = map.as_fd().as_raw_fd().cast_unsigned();
    // A batch holds whole buckets: room for the fullest one, or the kernel answers ENOSPC.
    let mut room = max_entries.clamp(256, 16_384);
    let mut found = Vec::new();
    let mut cursor = 0u32;
    let mut first = true;
    loop {
        let mut keys = vec![K::zeroed(); room as usize];
        let mut values = vec![V::zeroed(); room as usize];
        let mut next = 0u32;
        let mut attr = MapBatch {
            in_batch: if first { 0 } else { &raw const cursor as u64 },
            out_batch: &raw mut next as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: room,
            map_fd,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: `attr` is laid out as the kernel's for this command; the vectors have room for `count` elements of
        // the map's sizes, which `maps::check` has compared, and a hash map's cursor is 32 bits.
        let done = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) };
        let end = match done {
            Ok(_) => false,
            Err(err) if err.kind() == io::ErrorKind::NotFound => true,
            Err(err) if err.raw_os_error() == Some(libc::ENOSPC) => {
                room = room.saturating_mul(2);
                continue;
            }
            Err(err) => return Err(err),
        };
        let count = attr.count as usize;
        found.extend(keys.into_iter().zip(values).take(count));
        if end {
            return Ok(found);
        }
        cursor = next;
        first = false;
    }
}

/// bpf(2).
///
/// # Safety
///
/// `attr` must be laid out as the kernel's `union bpf_attr` for `command`, and what it points to must live.
pub(super) unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    // SAFETY: as the caller promises; the kernel is told the size and treats what is beyond as zero.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done as i32) }
}
