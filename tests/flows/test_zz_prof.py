import time, faulthandler, pytest
from flows.tiles import tiles
def test_trial(world) -> None:
    for n in range(3):
        t=time.time()
        f=open("/tmp/tt/dump.txt","w"); faulthandler.dump_traceback_later(0.6, repeat=False, file=f)
        with pytest.raises(Exception): tiles("nothing","a",3)
        faulthandler.cancel_dump_traceback_later(); f.close()
        print("TOOK", round(time.time()-t,2))
