"""The bridge to OpenMMLab: mmdet and mmsegmentation from wheels, without compiling anything."""
