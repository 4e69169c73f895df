import cv2
def decode(p): return cv2.cvtColor(cv2.imread(str(p)), cv2.COLOR_BGR2RGB)
def fit(image,h,w,crop): return image if image.shape[:2]==(h,w) else cv2.resize(image,(w,h),interpolation=cv2.INTER_AREA)
