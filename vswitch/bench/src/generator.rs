//! How are frames made faster than any switch takes them? In the kernel: BPF_PROG_TEST_RUN with live frames.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, DevMap},
    programs::{
        SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode,
        tc::qdisc_add_clsact,
    },
    util::KernelVersion,
};
use rtnetlink::LinkVeth;
use vswitch_ebpf::stream::{ENTRANCES, RECEIVING, SENDING, Stream, station};

use super::{
    clock::{CpuTime, Deferred},
    cpus::generator_cpu,
    lab::Room,
};

/// The generator, receivers and floors, as `cargo xtask build` compiled them; empty in a host-only build.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.o"));

/// As many frames as NAPI takes from a veth's ring at once; a quarter of the ring.
pub(super) const BATCH: u32 = 64;
/// From here on tc programs are attached without a qdisc.
const TCX: KernelVersion = KernelVersion::new(6, 6, 0);

/// A protocol of nobody (IEEE 802 local experimental 1): the receiver's stack takes the frame, looks for a handler, and
/// is done with it. No protocol's own cost is measured.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Where frames enter: a far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entrance(u32);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) entrance: Entrance,
    /// Bytes without the checksum that ends a frame on a wire.
    pub(super) bytes: usize,
    /// How many sources the frames have, in turn.
    pub(super) sources: u32,
    pub(super) destinations: u32,
    /// From the receivers' side, so that a switch learns where they are.
    pub(super) reverse: bool,
    /// Another destination than a station.
    pub(super) to: Option<[u8; 6]>,
    /// How many come at once.
    pub(super) batch: u32,
}

/// The programs that send, and the ends of a cable that they are attached to.
const SENDERS: [(&str, &str); 2] = [("send_same", "g0"), ("send_changing", "g1")];

/// The generator.
pub(super) struct Generator {
    ebpf: Ebpf,
    /// Where the programs are attached: nothing passes there. The kernel makes each XDP program that is in use one of those
    /// that its dispatcher calls directly, and waits for a grace period whenever one joins or leaves. Without this, each
    /// run would wait twice, 35 ms in all.
    _home: Room,
    entrances: u32,
    /// What a run costs without its frames.
    overhead: Duration,
    deferred: Deferred,
    /// By the time that sending takes: the frames are received on other CPUs.
    wall: bool,
}

impl Load {
    /// Frames from one station to another.
    pub(super) fn new(entrance: Entrance, bytes: usize) -> Self {
        Self { entrance, bytes, sources: 1, destinations: 1, reverse: false, to: None, batch: BATCH }
    }

    /// What the sources and the destinations begin with.
    fn sides(&self) -> ([u8; 2], [u8; 2]) {
        if self.reverse { (RECEIVING, SENDING) } else { (SENDING, RECEIVING) }
    }

    fn frame(&self) -> Vec<u8> {
        let mut frame = vec![0; self.bytes.max(14)];
        let (from, to) = self.sides();
        let (from, to) = (station(from, 0), self.to.unwrap_or_else(|| station(to, 0)));
        let header = to.into_iter().chain(from).chain(ETHERTYPE);
        frame.iter_mut().zip(header).for_each(|(byte, value)| *byte = value);
        frame
    }
}

impl Generator {
    /// `home`: the name of its room.
    pub(super) fn new(home: &str, wall: bool) -> Result<Self> {
        let home = Room::new(home)?;
        let [(_, near), (_, far)] = SENDERS;
        home.links(|handle| async move {
            let cable = LinkVeth::new(near, far).build();
            handle.link().add(cable).execute().await.context("create the generator's cable")
        })?;
        let mut ebpf = load(0)?;
        for (name, ifname) in SENDERS {
            home.netns.run_in(|| attach_xdp(&mut ebpf, name, ifname))??;
        }
        Ok(Self {
            ebpf,
            _home: home,
            entrances: 0,
            overhead: Duration::ZERO,
            deferred: Deferred::of(generator_cpu()),
            wall,
        })
    }

    /// Makes an interface in a room a place where frames enter.
    pub(super) fn entrance(&mut self, room: &Room, ifindex: u32) -> Result<Entrance> {
        // Elements clear themselves when their interface goes.
        let number = self.entrances % ENTRANCES;
        self.entrances += 1;
        let map = self.ebpf.map_mut("ENTRANCE").ok_or_else(|| anyhow!("map ENTRANCE: not in the object"))?;
        let mut map = DevMap::try_from(map).context("map ENTRANCE")?;
        // The kernel looks the index up in the caller's namespace.
        room.netns
            .run_in(|| map.set(number, ifindex, None, 0))?
            .context("enter an interface into ENTRANCE")?;
        Ok(Entrance(number))
    }

    /// Sends `count` frames, from this thread's CPU; returns how much of that CPU's time it took, switch and receiving veth
    /// included: the soft interrupts that a batch of frames causes are done before the next. The clock on the wall would
    /// tell of grace periods at start and end, tens of milliseconds, and of whoever else has the CPU meanwhile.
    pub(super) fn send(&mut self, load: &Load, count: u32) -> Result<Duration> {
        let (source_side, destination_side) = load.sides();
        let stream = Stream {
            entrance: load.entrance.0,
            sources: load.sources,
            destinations: load.destinations,
            source_side,
            destination_side,
            ..Stream::default()
        };
        let map = self.ebpf.map_mut("STREAM").ok_or_else(|| anyhow!("map STREAM: not in the object"))?;
        let mut map: Array<_, [u8; size_of::<Stream>()]> = Array::try_from(map).context("map STREAM")?;
        let stream: [u8; size_of::<Stream>()] = bytemuck::cast(stream);
        map.set(0, stream, 0).context("set the stream")?;
        let name = match (load.sources, load.destinations) {
            (1, 1) => "send_same",
            _ => "send_changing",
        };
        let frame = load.frame();
        let options = TestRunOptions {
            data_in: Some(&frame),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(load.batch.min(count)),
            ..TestRunOptions::new()
        };
        let program = xdp(&mut self.ebpf, name)?;
        let started = CpuTime::now(&self.deferred);
        let ran =
            program.test_run(options).context("generate frames (BPF_PROG_TEST_RUN with live frames)")?;
        if self.wall {
            // A mean without start and end, which the kernel takes.
            return Ok(ran.duration * count);
        }
        Ok(CpuTime::now(&self.deferred).since(&started).saturating_sub(self.overhead))
    }

    /// Learns what a run costs without its frames.
    pub(super) fn calibrate(&mut self, load: &Load) -> Result<()> {
        self.overhead = Duration::ZERO;
        let mut took = Vec::new();
        for _ in 0..9 {
            took.push(self.send(load, BATCH)?);
        }
        took.sort();
        self.overhead = took[took.len() / 2];
        Ok(())
    }
}

/// The object, with the interface that the floors send to.
pub(super) fn load(target: u32) -> Result<Ebpf> {
    if OBJECT.is_empty() {
        bail!("this binary was built without its BPF objects: build it with `cargo xtask build`");
    }
    let mut loader = EbpfLoader::new();
    loader.override_global("TARGET", &target, true);
    loader.load(OBJECT).context("load the bench's BPF object")
}

/// Attaches an XDP program of the object to an interface of the calling thread's namespace, natively.
pub(super) fn attach_xdp(ebpf: &mut Ebpf, name: &str, ifname: &str) -> Result<()> {
    let program = xdp(ebpf, name)?;
    if program.fd().is_err() {
        program.load().with_context(|| format!("load {name}"))?;
    }
    program.attach(ifname, XdpMode::Driver).with_context(|| format!(r#"attach {name} to "{ifname}""#))?;
    Ok(())
}

/// Attaches a tc program likewise, to what arrives.
pub(super) fn attach_tc(ebpf: &mut Ebpf, name: &str, ifname: &str) -> Result<()> {
    let program = ebpf.program_mut(name).ok_or_else(|| anyhow!("program {name}: not in the object"))?;
    let program: &mut SchedClassifier = program.try_into().with_context(|| format!("program {name}"))?;
    program.load().with_context(|| format!("load {name}"))?;
    if KernelVersion::current().is_ok_and(|version| version < TCX) {
        // That there is one already is no error, and any other shows when the program is attached.
        let _there = qdisc_add_clsact(ifname);
    }
    program
        .attach(ifname, TcAttachType::Ingress)
        .with_context(|| format!(r#"attach {name} to "{ifname}""#))?;
    Ok(())
}

fn xdp<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    let program = ebpf.program_mut(name).ok_or_else(|| anyhow!("program {name}: not in the object"))?;
    program.try_into().with_context(|| format!("program {name}"))
}
