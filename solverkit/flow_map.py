"""The probability flow as a map: encode data to latents, and decode them again."""

from .flow.flow_map import FlowField, FlowMap, decode, encode, ends, transport

__all__ = ["FlowField", "FlowMap", "decode", "encode", "ends", "transport"]
