//! The bare write loop: the cost of the kernel alone. A process that accepts sockets and only writes the frames that a
//! node would deliver, at the same rate.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::{
    BenchResult,
    args::Args,
    deliveries::restamped,
    wire::{now, server_text},
};

/// Prints its address, waits for all sockets and the first bytes, then writes until it is killed.
pub fn serve(args: &Args, rate: u64, sample: &str) -> BenchResult<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    let audience = args.sockets / args.rooms;
    let mut sockets = Vec::with_capacity(args.sockets);
    for _ in 0..audience * args.rooms {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        sockets.push(socket);
    }
    sockets[0].read_exact(&mut [0; 2])?;
    for socket in &sockets {
        socket.set_nonblocking(true)?;
    }

    let pause = Duration::from_nanos(1_000_000_000 * audience as u64 / rate);
    let begin = Instant::now();
    for number in 0u32.. {
        thread::sleep((pause * number).saturating_sub(begin.elapsed()));
        let frame = server_text(&restamped(sample, now(), number.into()));
        let room = number as usize % args.rooms;
        for socket in &mut sockets[room * audience..(room + 1) * audience] {
            if !write(socket, &frame) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Writes a frame; false if the reader has gone. A reader whose socket buffer is full misses the frame.
fn write(socket: &mut TcpStream, frame: &[u8]) -> bool {
    match socket.write(frame) {
        Ok(written) if written < frame.len() => {
            // Complete a frame that is partly written.
            let rest = socket.set_nonblocking(false).and_then(|()| socket.write_all(&frame[written..]));
            rest.and_then(|()| socket.set_nonblocking(true)).is_ok()
        }
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
