"""What a photograph shows before any model sees it: its field of view, its looks, its side.

    fov             the circular field of view
    field_measures  cheap statistics inside it
    quality         from these: can this be a gradable colour fundus photograph?
    laterality      from these: which eye is it?

`edge_runtime.eye_pipeline` puts them beside the model's own gradability.
"""
