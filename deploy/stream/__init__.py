"""Results of a whole source of images (video, camera, folder, arrays): `model.stream(source)`, and other ways to call.

channel.py         bounded queue between two threads, which waits or drops the oldest item
pipeline.py        stages in threads, from a source to the caller
sources.py         what may be streamed, as frames
capture.py         frames of videos and cameras, by OpenCV
stream.py          the stages that a model puts between source and caller
calls.py           the methods that every model has
"""
