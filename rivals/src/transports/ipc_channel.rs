//! ipc-channel: sockets of the kernel below, one receiver for each channel. A sender sends once for each, and sleeps in the kernel while there is no room, also where others spin.

use anyhow::{Context, Result};
use ipc_channel::TryRecvError;
use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender};
use shmbus_bench::transport::{Abilities, Channel, Receiver, Sender, Transport};

pub(crate) struct IpcChannel;

pub(crate) struct Outlets(Vec<IpcBytesSender>);

pub(crate) struct Inlet {
    server: Option<IpcOneShotServer<IpcBytesReceiver>>,
    receiver: Option<IpcBytesReceiver>,
}

impl Transport for IpcChannel {
    type Sender = Outlets;
    type Receiver = Inlet;

    fn name(&self) -> &'static str {
        "ipc-channel"
    }

    fn abilities(&self) -> Abilities {
        Abilities::STREAM
    }

    fn listen(&self, channel: &Channel, index: usize) -> Result<Inlet> {
        let (server, name) = IpcOneShotServer::new()?;
        std::fs::write(channel.file(&index.to_string()), name)?;
        Ok(Inlet { server: Some(server), receiver: None })
    }

    fn connect(&self, channel: &Channel) -> Result<Outlets> {
        let mut senders = Vec::new();
        for index in 0..channel.receivers {
            let name = std::fs::read_to_string(channel.file(&index.to_string()))?;
            let (sender, receiver) = ipc::bytes_channel()?;
            IpcSender::connect(name)?.send(receiver)?;
            senders.push(sender);
        }
        Ok(Outlets(senders))
    }
}

impl Sender for Outlets {
    fn send(&mut self, message: &[u8]) -> Result<()> {
        Ok(self.0.iter().try_for_each(|sender| sender.send(message))?)
    }
}

impl Receiver for Inlet {
    fn accept(&mut self) -> Result<()> {
        let server = self.server.take().context("accepted before")?;
        self.receiver = Some(server.accept()?.1);
        Ok(())
    }

    fn try_receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        match self.receiver.as_ref().context("not accepted")?.try_recv() {
            Ok(message) => Ok(Some(look(&message))),
            Err(TryRecvError::Empty) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        Ok(look(&self.receiver.as_ref().context("not accepted")?.recv()?))
    }
}
