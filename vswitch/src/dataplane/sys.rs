//! The few bpf(2) calls that aya does not have: opening a pin read-only, reading and changing a device map, looking up in batches,
//! asking a link what it is attached to, pinning what is held.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use bytemuck::{Pod, Zeroable};

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
const BPF_LINK_GET_NEXT_ID: libc::c_long = 31;
const BPF_LINK_DETACH: libc::c_long = 34;
// enum bpf_link_type
const BPF_LINK_TYPE_XDP: u32 = 6;
const BPF_LINK_TYPE_TCX: u32 = 11;
const BPF_F_RDONLY: u32 = 1 << 3;

/// `union bpf_attr` for BPF_OBJ_GET and BPF_OBJ_PIN.
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

/// `union bpf_attr` for BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct ObjInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `union bpf_attr` for BPF_LINK_GET_NEXT_ID and BPF_LINK_GET_FD_BY_ID.
#[repr(C)]
struct NextId {
    start_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The beginning of `struct bpf_link_info`, of an XDP or a tcx link.
#[repr(C)]
#[derive(Clone, Copy, Default, Zeroable, Pod)]
struct LinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    pad: u32,
    ifindex: u32,
    attach_type: u32,
}

/// Opens a pinned map for look-ups alone: its mode need not allow more.
pub(super) fn open_read_only(path: &Path) -> io::Result<OwnedFd> {
    open(path, BPF_F_RDONLY)
}

/// Opens a pinned program, link or map.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    open(path, 0)
}

/// Pins what a descriptor holds.
pub(super) fn pin(fd: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let bpf_fd = fd.as_fd().as_raw_fd().cast_unsigned();
    let mut attr = ObjGet { pathname: path.as_ptr() as u64, bpf_fd, file_flags: 0 };
    // SAFETY: `attr` is laid out as the kernel's for this command, and the string that it points to outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.map(|_| ())
}

/// The interface that a link's program is attached to; 0 once it is detached or the interface is gone.
pub(super) fn attached_to(link: impl AsFd) -> io::Result<u32> {
    let mut info = LinkInfo::default();
    let mut attr = ObjInfo {
        bpf_fd: link.as_fd().as_raw_fd().cast_unsigned(),
        info_len: size_of::<LinkInfo>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: `attr` is laid out as the kernel's for this command; the kernel writes at most `info_len` bytes to `info`.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let on_interface = [BPF_LINK_TYPE_XDP, BPF_LINK_TYPE_TCX].contains(&info.kind);
    Ok(if on_interface { info.ifindex } else { 0 })
}

/// The lowest number of a link of this machine above `id`. Numbers are given upwards (idr_alloc_cyclic, bpf_link_prime in
/// kernel/bpf/syscall.c): what is attached from now on has a higher one.
pub(super) fn link_after(id: u32) -> Option<u32> {
    let mut attr = NextId { start_id: id, next_id: 0, open_flags: 0 };
    // SAFETY: `attr` is laid out as the kernel's for this command, which points nowhere.
    unsafe { bpf(BPF_LINK_GET_NEXT_ID, &mut attr) }.ok().map(|_| attr.next_id)
}

/// The link of that number.
pub(super) fn link(id: u32) -> io::Result<OwnedFd> {
    let mut attr = NextId { start_id: id, next_id: 0, open_flags: 0 };
    // SAFETY: `attr` is laid out as the kernel's for this command, which points nowhere.
    let fd = unsafe { bpf(BPF_LINK_GET_FD_BY_ID, &mut attr) }?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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

/// Adds or replaces an element.
pub(super) fn update<K: Pod, V: Pod>(map: impl AsFd, key: &K, value: &V) -> io::Result<()> {
    let mut attr = MapElem {
        map_fd: map.as_fd().as_raw_fd().cast_unsigned(),
        pad: 0,
        key: std::ptr::from_ref(key) as u64,
        value: std::ptr::from_ref(value) as u64,
        flags: 0,
    };
    // SAFETY: `attr` is laid out as the kernel's for this command; key and value live and have the map's sizes, which
    // `spec::check` has compared. The kernel only reads them.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }.map(|_| ())
}

/// So many elements of an array from one on, in one call.
pub(super) fn row<V: Pod>(map: impl AsFd, first: u32, count: u32) -> io::Result<Vec<V>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut keys = vec![0u32; count as usize];
    let mut values = vec![V::zeroed(); count as usize];
    // The kernel begins behind the one that it is told.
    let (before, mut next) = (first.wrapping_sub(1), 0u32);
    let mut attr = MapBatch {
        in_batch: if first == 0 { 0 } else { &raw const before as u64 },
        out_batch: &raw mut next as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count,
        map_fd: map.as_fd().as_raw_fd().cast_unsigned(),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: `attr` is laid out as the kernel's for this command; the vectors have room for `count` elements of the map's
    // sizes, which `spec::check` has compared, and the cursor of an array is its key.
    match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) } {
        // The array ends with the row.
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        Ok(_) | Err(_) => {}
    }
    values.truncate(attr.count as usize);
    Ok(values)
}

/// Replaces elements of an array, in one call.
pub(super) fn update_all<K: Pod, V: Pod>(map: impl AsFd, keys: &[K], values: &[V]) -> io::Result<()> {
    let count = keys.len().min(values.len());
    if count == 0 {
        return Ok(());
    }
    let mut attr = MapBatch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(count).map_err(|_too_many| io::ErrorKind::InvalidInput)?,
        map_fd: map.as_fd().as_raw_fd().cast_unsigned(),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: `attr` is laid out as the kernel's for this command; both slices hold `count` elements of the map's sizes,
    // which `spec::check` has compared. The kernel only reads them.
    unsafe { bpf(BPF_MAP_UPDATE_BATCH, &mut attr) }.map(|_| ())
}

/// An element.
pub(super) fn get<K: Pod, V: Pod>(map: impl AsFd, key: &K) -> io::Result<Option<V>> {
    let mut value = V::zeroed();
    let mut attr = MapElem {
        map_fd: map.as_fd().as_raw_fd().cast_unsigned(),
        pad: 0,
        key: std::ptr::from_ref(key) as u64,
        value: &raw mut value as u64,
        flags: 0,
    };
    // SAFETY: `attr` is laid out as the kernel's for this command; key and value live and have the map's sizes, which
    // `spec::check` has compared. The kernel writes the value alone, of which any bytes are one.
    match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) } {
        Ok(_) => Ok(Some(value)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
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
    // `spec::check` has compared.
    match unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attr) } {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// All elements of a hash map or an array, an array's in order, in few calls. A hash map's that come or go meanwhile may be missing or
/// appear twice.
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
        // the map's sizes, which `spec::check` has compared, and the cursor of a hash map or an array is 32 bits.
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
        // An array is whole with its last element: another call would only say so.
        if end || found.len() >= max_entries as usize {
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
