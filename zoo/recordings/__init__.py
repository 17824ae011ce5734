"""Recordings of event cameras: from files to the frames that a network takes."""

from zoo.recordings.files import SUFFIXES, Sensor, is_recording
from zoo.recordings.frames import Recording, read_recording

__all__ = ["SUFFIXES", "Recording", "Sensor", "is_recording", "read_recording"]
