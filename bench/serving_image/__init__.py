"""What of the serving benchmark runs inside the image `server-bench`, where server, baseline and stock runtime are."""

from fiduciary_server import absent

absent.stand_in()  # before any module here imports MLServer
